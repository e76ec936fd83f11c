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
            copies pay.
          batch_size: rows that are computed at a time.
          copies: whether it pays to split the rows over devices with a copy of the model each.

        Raises:
          UserError: there are too few devices, or they do not divide the batch.
        """
        model_parts = config.fsdp * config.tensor
        most = jax.device_count() // model_parts if copies else 1
        rows = batch_size // math.gcd(batch_size, config.fsdp)
        data = config.data or max((d for d in range(1, most + 1) if rows % d == 0), default=1)
        shape = (data, config.fsdp, config.tensor)
        wanted = math.prod(shape)
        if not 0 < wanted <= jax.device_count():
            raise UserError(
                f'mesh.data={data} x fsdp={config.fsdp} x tensor={config.tensor} needs '
                f'{max(wanted, model_parts)} devices, and there are {jax.device_count()}; '
                'lower them (simulated CPU devices: JAX_NUM_CPU_DEVICES=8)'
            )
        if batch_size % (data * config.fsdp):
            raise UserError(
                f'{batch_size} rows at a time (train.batch_size / train.accumulate) cannot be '
                f'split evenly over mesh.data={data} x fsdp={config.fsdp}; '
                f'make them a multiple of {data * config.fsdp}'
            )
        devices = jax.devices()[:wanted]
        self.mesh = Mesh(
            np.array(devices).reshape(shape),
            ('data', 'fsdp', 'tensor'),
            axis_types=(AxisType.Auto,) * 3,
        )
        self.rows = data * config.fsdp
        # In-process CPU devices deadlock in a collective when several steps are queued.
        self.must_wait = wanted > 1 and devices[0].platform == 'cpu'

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
        return jax.tree_util.tree_map_with_path(self._sharding, tree)

    def _sharding(self, path: KeyPath, leaf: jax.Array) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        spec = next(spec for pattern, spec in RULES if re.search(pattern, name))
        if len(spec) != len(leaf.shape):  # Scalars, and statistics that an optimizer reduced.
            spec = P()
        # A width that the axis does not divide (a vocabulary of 65, say) stays whole.
        fits = [
            axes if axes and n % self._parts(axes) == 0 else None
            for axes, n in zip(spec, leaf.shape, strict=False)
        ]
        return NamedSharding(self.mesh, P(*fits))

    def _parts(self, axes: str | tuple[str, ...]) -> int:
        names = (axes,) if isinstance(axes, str) else axes
        return math.prod(self.mesh.shape[name] for name in names)


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
