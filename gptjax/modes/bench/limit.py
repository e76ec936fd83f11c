"""The limit of the machine: the time of a program's matrix products, and how fast memory is read.

Nothing that multiplies these matrices can be faster with the same library; what a side of a
benchmark needs beyond that is spent on everything else.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gptjax.models.linear import is_multiplied

PASSES = 3  # of which the fastest counts
LEAST_BYTES = 2**28  # read in one call, so that the call itself takes no time
WIDTH = 2**10  # of the rows that are read


class Product(NamedTuple):
    """`batch` products of (rows, inner) @ (inner, columns) in a type, summed in another."""

    batch: int
    rows: int
    inner: int
    columns: int
    dtype: str
    sum_dtype: str

    @property
    def flops(self) -> int:
        """A multiplication and an addition for each entry of each row."""
        return 2 * self.batch * self.rows * self.inner * self.columns


def of_step(train_step: Callable, state: Any, batch: dict, *, accumulate: int) -> tuple[float, int]:
    """Least seconds of a train step's matrix products, and how many operations they are.

    On a CPU also with the rows split over one device for each core, whichever is faster.
    """
    rows = {len(values) for values in batch.values()}.pop()
    counts = {1, jax.device_count() if jax.default_backend() == 'cpu' else 1}
    times, flops = [], 0
    for n in (n for n in counts if rows % (n * accumulate) == 0):
        part = {name: values[: rows // n] for name, values in batch.items()}
        found = products(train_step, state, part)
        flops = n * sum(product.flops for product in found)
        times.append(seconds(found, n))
    return min(times), flops


def weights(params: Any) -> int:
    """Numbers in all matrices that a decoded token is multiplied with."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(leaf.size for path, leaf in leaves if is_multiplied(path))


def products(function: Callable, *args: Any) -> list[Product]:
    """All matrix products that a function does with arguments of these shapes, in their order."""
    return list(_products(jax.make_jaxpr(function)(*args).jaxpr))


def _products(jaxpr: Any) -> Iterator[Product]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'dot_general':
            yield _product(equation)
        inner = [
            getattr(value, 'jaxpr', value)
            for parameter in equation.params.values()
            for value in (parameter if isinstance(parameter, tuple | list) else [parameter])
            if hasattr(getattr(value, 'jaxpr', value), 'eqns')
        ]
        if equation.primitive.name == 'cond':
            inner = inner[:1]  # One branch runs. Ours have the same products, or none.
        for _ in range(equation.params.get('length', 1)):
            for part in inner:
                yield from _products(part)


def _product(equation: Any) -> Product:
    lhs, rhs = (v.aval for v in equation.invars)
    (contracting, _), (batch, _) = equation.params['dimension_numbers']
    count = math.prod(lhs.shape[i] for i in batch)
    inner = math.prod(lhs.shape[i] for i in contracting)
    rows = math.prod(lhs.shape) // (count * inner)
    columns = math.prod(rhs.shape) // (count * inner)
    types = str(rhs.dtype), str(equation.outvars[0].aval.dtype)
    return Product(count, rows, inner, columns, *types)


def seconds(all_products: list[Product], devices: int = 1) -> float:
    """Least seconds in which each of some devices does all of the products, all at once.

    Every product has operands of its own, as in a model whose layers have their own weights.
    """
    mesh = Mesh(jax.devices()[:devices], ('data',))
    make = functools.partial(_operands, tuple(all_products), devices)
    operands = jax.jit(make, out_shardings=NamedSharding(mesh, P('data')))()

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P('data'), out_specs=P('data'))
    def multiply(operands: list) -> jax.Array:
        done = jnp.zeros(1)
        for (lhs, rhs), product in zip(operands, all_products, strict=True):
            # The barriers keep XLA from leaving out products, or parts of them, and their order.
            lhs, done = jax.lax.optimization_barrier((lhs[0], done))
            y = jnp.matmul(lhs, rhs[0], preferred_element_type=product.sum_dtype)
            done = done + jax.lax.optimization_barrier(y).ravel()[:1]
        return done

    return _least(functools.partial(multiply, operands))


def bandwidth(n_bytes: int) -> float:
    """Bytes a second at which all cores read this many bytes again and again, as decoding does."""
    return max(n_bytes / _seconds_to_read(n_bytes, n) for n in {1, jax.device_count()})


def _seconds_to_read(n_bytes: int, devices: int) -> float:
    mesh, spec = Mesh(jax.devices()[:devices], ('data',)), P('data')
    rows = max(1, n_bytes // (4 * WIDTH * devices)) * devices
    times = max(1, LEAST_BYTES // n_bytes)
    make = functools.partial(jnp.ones, (rows, WIDTH), jnp.float32)
    array = jax.jit(make, out_shardings=NamedSharding(mesh, spec))()

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec)
    def read(part: jax.Array) -> jax.Array:
        def again(_: int, row: jax.Array) -> jax.Array:
            # The barrier keeps the product in the loop.
            seen, row = jax.lax.optimization_barrier((part, row))
            return row + (row @ seen.T).max()

        row = jax.lax.pcast(jnp.ones((1, WIDTH)), 'data', to='varying')
        return jax.lax.fori_loop(0, times, again, row)

    return _least(functools.partial(read, array)) / times * n_bytes / array.nbytes


def _operands(all_products: tuple[Product, ...], devices: int) -> list:
    return [
        (
            jnp.full((devices, p.batch, p.rows, p.inner), 0.5, p.dtype),
            jnp.full((devices, p.batch, p.inner, p.columns), 0.5, p.dtype),
        )
        for p in all_products
    ]


def _least(run: Callable[[], jax.Array]) -> float:
    jax.block_until_ready(run())
    times = []
    for _ in range(PASSES):
        began = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - began)
    return min(times)
