"""Which device holds what: one table of patterns, outside the models.

The mesh has three axes. The batch is split over `data` and `fsdp`; parameters (and what the
optimizer keeps of them) are stored in parts along `fsdp` and `tensor`. XLA adds the communication.
"""

import math
import re
from collections.abc import Mapping, Sequence
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
Sizes = Mapping[str, int]  # of the axes of a mesh

# The first pattern that is found in a parameter's path decides. N heads are split, never one head.
RULES = (
    (r'opt_state.*/stack_', P(('data', 'fsdp'), None, None)),  # Muon: some matrices on each device
    (r'(query|key|value)/kernel', P('fsdp', 'tensor', None)),  # DNH
    (r'(query|key|value)/bias', P('tensor', None)),  # NH
    (r'attn/out/kernel', P('tensor', None, 'fsdp')),  # NHD
    (r'up/kernel', P('fsdp', 'tensor')),  # DF
    (r'up/bias', P('tensor')),  # F
    (r'down/kernel', P('tensor', 'fsdp')),  # FD
    (r'embedding', P(('fsdp', 'tensor'), None)),  # VD; D whole, so that activations have it whole
    (r'head/kernel', P('fsdp', 'tensor')),  # DV
    (r'', P()),
)


class Layout:
    """The mesh of a run, and where states and batches go on it."""

    def __init__(self, config: MeshConfig, batch_size: int, *, copies: bool = True) -> None:
        """Arranges the devices.

        Args:
          config: its `data` of 0 means as many as there are, so far as they divide the batch and
            copies pay.
          batch_size: rows that are computed at a time.
          copies: whether it pays to split the rows over devices with a copy of the model each.

        Raises:
          UserError: there are too few devices, or they do not divide the batch.
        """
        sizes = mesh_sizes(config, batch_size, jax.device_count(), copies=copies)
        grid = np.array(jax.devices()[: math.prod(sizes.values())]).reshape(*sizes.values())
        self.mesh = Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * 3)
        self.rows = sizes['data'] * sizes['fsdp']
        # In-process CPU devices deadlock in a collective when several steps are queued.
        self.must_wait = grid.size > 1 and jax.default_backend() == 'cpu'

    def put(self, batch: Any, axis: int = 0) -> Any:
        """Host arrays (this process's rows) -> device arrays, split along the axis of the rows."""
        axes = tuple(name for name in ('data', 'fsdp') if self.mesh.shape[name] > 1)
        sharding = NamedSharding(self.mesh, P(*[None] * axis, axes) if axes else P())
        if jax.process_count() == 1:
            whole = NamedSharding(self.mesh, P())  # Scalars have no rows.
            shardings = jax.tree.map(lambda x: sharding if np.ndim(x) > axis else whole, batch)
            return jax.device_put(batch, shardings)
        return jax.tree.map(
            lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch
        )

    def copy(self, tree: Tree) -> Tree:
        """Puts a whole copy of all arrays on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, P()))

    def wait(self, arrays: Tree) -> Tree:
        """Returns the arrays, finished where queueing more work would be dangerous."""
        return jax.block_until_ready(arrays) if self.must_wait else arrays

    def of(self, tree: Any) -> Any:
        """The sharding of each leaf of a (possibly abstract) state, by the table above."""
        return jax.tree_util.tree_map_with_path(
            lambda path, x: NamedSharding(self.mesh, spec_of(path, x.shape, self.mesh.shape)), tree
        )


def mesh_sizes(config: MeshConfig, rows: int, devices: int, *, copies: bool = True) -> Sizes:
    """The sizes of the axes for some rows at a time on some devices; otherwise as `Layout`."""
    fsdp, tensor = config.fsdp, config.tensor
    most = devices // (fsdp * tensor) if copies else 1
    data = config.data or max((d for d in range(1, most + 1) if rows % (d * fsdp) == 0), default=1)
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


def spec_of(path: KeyPath, shape: Sequence[int], sizes: Sizes) -> P:
    """How a leaf of a state is split over axes of these sizes, by the table above."""
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    spec = next(spec for pattern, spec in RULES if re.search(pattern, name))
    if len(spec) != len(shape):  # Scalars, and statistics that an optimizer reduced.
        spec = P()
    fits = []
    for axes, n in zip(spec, shape, strict=False):
        names = (axes,) if isinstance(axes, str) else axes or ()
        # A width that the axis does not divide (a vocabulary of 65, say) stays whole.
        fits.append(axes if n % math.prod(sizes[name] for name in names) == 0 else None)
    return P(*fits)


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
