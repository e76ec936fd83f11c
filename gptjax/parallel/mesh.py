"""Which device holds what: one table of patterns, outside the models.

The mesh has three axes. The batch is split over `data` and `fsdp`; parameters (and what the
optimizer keeps of them) are stored in parts along `fsdp` and `tensor`. XLA adds the communication.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import KeyPath

from gptjax.config import MeshConfig
from gptjax.errors import UserError

Tree = TypeVar('Tree')  # nested arrays
Sizes = Mapping[str, int]  # of the axes of a mesh
Axes = str | tuple[str, ...] | None  # of the mesh, which split one axis of an array
ROWS = ('data', 'fsdp')

# The first pattern that is found in the path of an array decides. N heads are split, never one.
RULES = (
    (r'opt_state.*/stack_', P(ROWS, None, None)),  # Muon: some matrices on each device
    (r'(query|key|value)/kernel', P('fsdp', 'tensor', None)),  # DNH
    (r'(query|key|value)/bias', P('tensor', None)),  # NH
    (r'attn/out/kernel', P('tensor', None, 'fsdp')),  # NHD
    (r'up/kernel', P('fsdp', 'tensor')),  # DF
    (r'up/bias', P('tensor')),  # F
    (r'down/kernel', P('tensor', 'fsdp')),  # FD
    (r'embedding', P(('fsdp', 'tensor'), None)),  # VD; D whole, so that activations have it whole
    (r'head/kernel', P('fsdp', 'tensor')),  # DV
    (r'cache/[kv]_MSH', P((*ROWS, 'tensor'), None, None)),  # rows, then heads
    (r'(pos|tokens)_BS|(logits|counts)_BV', P(ROWS, None)),
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
        sizes = mesh_sizes(config, batch_size, jax.device_count(), copies=copies)
        wanted, own = math.prod(sizes.values()), jax.local_device_count()
        if jax.process_count() > 1 and (wanted < jax.device_count() or own % sizes['tensor']):
            raise UserError(
                f'mesh.{" x ".join(f"{axis}={n}" for axis, n in sizes.items())} leaves a process '
                f'without rows of its own; let the product be {jax.device_count()}, and tensor '
                f'divide {own}'
            )
        grid = np.array(jax.devices()[:wanted]).reshape(*sizes.values())
        self.mesh = Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * 3)
        self.rows = sizes['data'] * sizes['fsdp']
        self.offload = config.offload
        self.whole = NamedSharding(self.mesh, P())  # all of an array on every device
        # Several in-process CPU devices deadlock in a collective when programs are queued, and each
        # program that is queued for one holds its temporary memory already.
        self.must_wait = jax.default_backend() == 'cpu'

    def put(self, batch: Any, axis: int = 0, *, whole: bool = False) -> Any:
        """Host arrays -> device arrays, split along the axis of the rows.

        The arrays have the rows of this process or, with `whole`, those of all.
        """
        axes = tuple(name for name in ROWS if self.mesh.shape[name] > 1)
        sharding = NamedSharding(self.mesh, P(*[None] * axis, axes) if axes else P())

        # Scalars have no rows.
        places = jax.tree.map(lambda x: sharding if np.ndim(x) > axis else self.whole, batch)
        if jax.process_count() == 1:
            return jax.device_put(batch, places)

        def put(place: NamedSharding, x: Any) -> jax.Array:
            shape = np.shape(x) if whole else None
            return jax.make_array_from_process_local_data(place, np.asarray(x), shape)

        return jax.tree.map(put, places, batch)

    def place(self, variables: Tree) -> Tree:
        """Puts variables on the devices, split by the table above."""
        return jax.device_put(variables, self.of(variables))

    def known_to(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, in which `split_by_rows` knows the mesh; jit what comes back."""

        def call(*args: Any, **how: Any) -> Any:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return function(*args, **how)

        return call

    def wait(self, arrays: Tree) -> Tree:
        """Returns the arrays, finished where no more work may be queued."""
        return jax.block_until_ready(arrays) if self.must_wait else arrays

    def of(self, tree: Any) -> Any:
        """The sharding of each leaf of a (possibly abstract) state, by the table above."""

        def sharding(path: KeyPath, x: Any) -> NamedSharding:
            waits = self.offload and name_of(path).startswith('opt_state') and x.ndim
            spec = spec_of(path, x.shape, self.mesh.shape)
            return NamedSharding(self.mesh, spec, memory_kind='pinned_host' if waits else None)

        return jax.tree_util.tree_map_with_path(sharding, tree)


def on_host(arrays: Any) -> Any:
    """The whole of some device arrays, as host arrays in every process."""
    if jax.process_count() == 1:
        return jax.device_get(arrays)
    return multihost_utils.process_allgather(arrays, tiled=True)


def split_by_rows(x: jax.Array, *others: str) -> jax.Array:
    """The same array, split by rows in a program that knows its mesh (`Layout.known_to`).

    `others` are axes of the mesh that split the next axes of the array.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    rows = tuple(name for name in ROWS if name not in mesh.manual_axes)
    return jax.lax.with_sharding_constraint(x, _divided((rows, *others), x.shape, mesh.shape))


def mesh_sizes(config: MeshConfig, rows: int, devices: int, *, copies: bool = True) -> Sizes:
    """The sizes of the axes for some rows at a time on some devices; otherwise as `Layout`."""
    data, fsdp, tensor = _filled_in(config, devices)
    most = devices // (fsdp * tensor) if copies else 1
    data = data or max((d for d in range(1, most + 1) if rows % (d * fsdp) == 0), default=1)
    if data * fsdp * tensor > devices:
        raise UserError(
            f'mesh.data={data} x fsdp={fsdp} x tensor={tensor} needs {data * fsdp * tensor} '
            f'devices, and there are {devices}; '
            'lower them (simulated CPU devices: JAX_NUM_CPU_DEVICES=8)'
        )
    if rows % (data * fsdp):
        raise UserError(
            f'{rows} rows at a time (train.batch_size / train.accumulate) cannot be split evenly '
            f'over mesh.data={data} x fsdp={fsdp}; make them a multiple of {data * fsdp}'
        )
    return {'data': data, 'fsdp': fsdp, 'tensor': tensor}


def rounded_up(rows: int, config: MeshConfig) -> int:
    """The least number of rows, not below `rows`, that the configured mesh can share."""
    devices = jax.device_count()
    data, fsdp, tensor = _filled_in(config, devices)
    if not data and jax.process_count() > 1:  # Each process has rows of its own.
        data = max(1, devices // (fsdp * tensor))
    shares = (data or 1) * fsdp
    return -(-rows // shares) * shares


def _filled_in(config: MeshConfig, devices: int) -> tuple[int, int, int]:
    """The configured sizes with a number for -1."""
    sizes = {axis: getattr(config, axis) for axis in ('data', 'fsdp', 'tensor')}
    filled = [axis for axis, size in sizes.items() if size < 0]
    if len(filled) > 1:
        raise UserError(f'mesh.{" and mesh.".join(filled)} are -1; give all sizes but one')
    for axis in filled:
        others = math.prod(size or 1 for other, size in sizes.items() if other != axis)
        sizes[axis] = max(1, devices // others)
    return sizes['data'], sizes['fsdp'], sizes['tensor']


def name_of(path: KeyPath) -> str:
    """The path of an array as text, such as `params/params/block_0/mlp/up/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator='/')


def split_of(path: KeyPath, shape: Sequence[int]) -> P:
    """How the table above splits a leaf of a state, if its widths can be divided."""
    found = next(spec for pattern, spec in RULES if re.search(pattern, name_of(path)))
    # Scalars, and statistics that an optimizer reduced, are whole.
    return found if len(found) == len(shape) else P()


def spec_of(path: KeyPath, shape: Sequence[int], sizes: Sizes) -> P:
    """How a leaf of a state is split over axes of these sizes."""
    return _divided(split_of(path, shape), shape, sizes)


def _divided(split: Iterable[Axes], shape: Sequence[int], sizes: Sizes) -> P:
    # A width that the axis does not divide (a vocabulary of 65, say) stays whole.
    pairs = zip(split, shape, strict=False)
    return P(*(axes if n % parts(axes, sizes) == 0 else None for axes, n in pairs))


def parts(axes: Axes, sizes: Sizes) -> int:
    """Into how many parts some axes split a width."""
    return math.prod(sizes[name] for name in ((axes,) if isinstance(axes, str) else axes or ()))
