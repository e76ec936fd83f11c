"""Which device holds what: one table of patterns, outside the models.

The mesh has three axes. The batch is split over `data` and `fsdp`; parameters (and what the
optimizer keeps of them) are stored in parts along `fsdp` and `tensor`. XLA adds the communication.
"""

import math
import re
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import KeyPath

from gptjax.config import MeshConfig
from gptjax.errors import UserError

# Of a CPU: with fewer, a copy of the model for each device costs more than it gains.
LEAST_TOKENS = 1024  # of a micro-batch in training
LEAST_ROWS = 32  # in decoding; half as many with fewer than SMALL parameters
SMALL = 8_000_000
LEAST_WORK = 5_000_000  # in decoding: rows times parameters

Tree = TypeVar('Tree')  # nested arrays

# The first pattern that is found in a parameter's path decides. N heads are split, never one head.
RULES = (
    (r'opt_state.*/stack_', P(('data', 'fsdp'), None, None)),  # Muon: some matrices on each device
    (r'(query|key|value)/kernel', P('fsdp', 'tensor', None)),  # DNH
    (r'(query|key|value)/bias', P('tensor', None)),  # NH
    (r'attn/out/kernel', P('tensor', None, 'fsdp')),  # NHD
    (r'up/kernel', P('fsdp', 'tensor')),  # DF
    (r'up/bias', P('tensor')),  # F
    (r'down/kernel', P('tensor', 'fsdp')),  # FD
    (r'embedding', P('tensor', 'fsdp')),  # VD
    (r'head/kernel', P('fsdp', 'tensor')),  # DV
    (r'', P()),
)


class Layout:
    """The mesh of a run, and where states and batches go on it."""

    def __init__(self, config: MeshConfig, batch_size: int, *, copies: bool = True) -> None:
        """Arranges the devices.

        Args:
          config: its `data` of 0 means as many as there are, so far as they divide the batch and
            copies pay; one size may be -1, which means all devices that the others leave.
          batch_size: rows that are computed at a time.
          copies: whether it pays to split the rows over devices with a copy of the model each.

        Raises:
          UserError: there are too few devices, they do not divide the batch, or one of several
            processes would have no rows of its own.
        """
        copies = copies or jax.process_count() > 1  # Each process needs rows of its own.
        data, fsdp, tensor = shape = _shape(config, batch_size, copies=copies)
        wanted, there = math.prod(shape), jax.device_count()
        if not 0 < wanted <= there:
            raise UserError(
                f'mesh.data={data} x fsdp={fsdp} x tensor={tensor} needs '
                f'{max(wanted, fsdp * tensor)} devices, and there are {there}; '
                'lower them (simulated CPU devices: JAX_NUM_CPU_DEVICES=8)'
            )
        if batch_size % (data * fsdp):
            raise UserError(
                f'{batch_size} rows at a time (train.batch_size / train.accumulate) cannot be '
                f'split evenly over mesh.data={data} x fsdp={fsdp}; '
                f'make them a multiple of {data * fsdp}'
            )
        if jax.process_count() > 1 and (wanted < there or jax.local_device_count() % tensor):
            raise UserError(
                f'mesh.data={data} x fsdp={fsdp} x tensor={tensor} leaves a process without rows '
                f'of its own; let the product be {there}, and tensor divide '
                f'{jax.local_device_count()}'
            )
        devices = jax.devices()[:wanted]
        self.mesh = Mesh(
            np.array(devices).reshape(shape),
            ('data', 'fsdp', 'tensor'),
            axis_types=(AxisType.Auto,) * 3,
        )
        self.rows = data * fsdp
        self.whole = NamedSharding(self.mesh, P())  # all of an array on every device
        # In-process CPU devices deadlock in a collective when several steps are queued.
        self.must_wait = wanted > 1 and devices[0].platform == 'cpu'

    def put(self, batch: Any, axis: int = 0) -> Any:
        """Host arrays (this process's rows) -> device arrays, split along the axis of the rows."""
        axes = tuple(name for name in ('data', 'fsdp') if self.mesh.shape[name] > 1)
        sharding = NamedSharding(self.mesh, P(*[None] * axis, axes) if axes else P())
        # Scalars have no rows.
        shardings = jax.tree.map(lambda x: sharding if np.ndim(x) > axis else self.whole, batch)
        if jax.process_count() == 1:
            return jax.device_put(batch, shardings)
        return jax.tree.map(jax.make_array_from_process_local_data, shardings, batch)

    def copy(self, tree: Tree) -> Tree:
        """Puts a whole copy of all arrays on every device."""
        return jax.device_put(tree, self.whole)

    def wait(self, arrays: Tree) -> Tree:
        """Returns the arrays, finished where queueing more work would be dangerous."""
        return jax.block_until_ready(arrays) if self.must_wait else arrays

    def of(self, tree: Any) -> Any:
        """The sharding of each leaf of a (possibly abstract) state, by the table above."""
        return jax.tree_util.tree_map_with_path(self._sharding, tree)

    def _sharding(self, path: KeyPath, leaf: jax.Array) -> NamedSharding:
        # A width that the axis does not divide (a vocabulary of 65, say) stays whole.
        fits = [
            axes if axes and n % self.parts(axes) == 0 else None
            for axes, n in zip(spec(path, leaf), leaf.shape, strict=False)
        ]
        return NamedSharding(self.mesh, P(*fits))

    def parts(self, axes: str | tuple[str, ...]) -> int:
        """Into how many parts these axes of the mesh split a width."""
        names = (axes,) if isinstance(axes, str) else axes
        return math.prod(self.mesh.shape[name] for name in names)


def _shape(config: MeshConfig, batch_size: int, *, copies: bool) -> tuple[int, int, int]:
    """The sizes of data, fsdp and tensor, with those that are not given filled in."""
    given = {name: getattr(config, name) for name in ('data', 'fsdp', 'tensor')}
    open_sizes = [name for name, size in given.items() if size < 0]
    if len(open_sizes) > 1:
        raise UserError(f'mesh.{" and mesh.".join(open_sizes)} are -1; give all sizes but one')
    for name in open_sizes:
        others = math.prod(size or 1 for other, size in given.items() if other != name)
        given[name] = max(1, jax.device_count() // others)
    data, fsdp, tensor = given.values()
    most = jax.device_count() // (fsdp * tensor) if copies else 1
    rows = batch_size // math.gcd(batch_size, fsdp)
    fitting = (d for d in range(1, most + 1) if rows % d == 0)
    return data or max(fitting, default=1), fsdp, tensor


def spec(path: KeyPath, leaf: jax.Array) -> P:
    """What the table says of an array."""
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    found = next(spec for pattern, spec in RULES if re.search(pattern, name))
    # Scalars, and statistics that an optimizer reduced, are whole.
    return found if len(found) == len(leaf.shape) else P()


def copies_pay(tokens: int) -> bool:
    """Whether training is faster with its rows split over devices that each have the whole model.

    The devices of a CPU share its memory, which then holds, reads and writes every copy, while one
    device already uses all cores for large matrix products. docs/performance.md has the table.
    `tokens` are those of a micro-batch.
    """
    return jax.default_backend() != 'cpu' or tokens >= LEAST_TOKENS


def copies_pay_in_decoding(params: int, rows: int) -> bool:
    """Whether decoding `rows` texts at a time is faster with a copy of the model per device."""
    least = LEAST_ROWS // 2 if params < SMALL else LEAST_ROWS
    enough = rows >= least and params * rows >= LEAST_WORK
    return jax.default_backend() != 'cpu' or enough
