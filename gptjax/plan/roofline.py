"""The time of a train step by a roofline: the slowest of three resources decides.

  step = max(compute, memory, communication) + offload

- compute: the FLOPs of a device, at `SHARE` of the chip's dense bfloat16 peak.
- memory: bytes that a step reads and writes, at the chip's bandwidth: state and gradients twice;
  for each micro-batch the weights in the type of computation three times (forward, and two products
  backward), activations and logits twice.
- communication: the ring algorithms of `communication`, wholly overlapped with the other two.
- offload: with `mesh.offload` the optimizer's state goes to the device and back, which is assumed
  not to overlap with computing.
"""

import math
from typing import NamedTuple

from gptjax.chips import Chip
from gptjax.config import Config
from gptjax.plan.memory import Memory

# Of the peak, what well-tuned training of GPT-2 reaches: 51% on H100 (1558M) and 63% on A100 (124M)
# in llm.c's own figures, see docs/plan.md.
SHARE = 0.5


class Step(NamedTuple):
    """Seconds of a train step that each resource needs by itself."""

    compute_s: float
    memory_s: float
    communication_s: float
    offload_s: float = 0.0

    @property
    def step_s(self) -> float:
        """The slowest of the first three decides, and offloading comes on top."""
        return max(self[:3]) + self.offload_s

    @property
    def bound_by(self) -> str:
        """The resource that decides."""
        return max(self._fields, key=lambda name: getattr(self, name)).removesuffix('_s')


def in_words(step: Step, chip: Chip) -> str:
    """What binds, and what would help."""
    return {
        'compute': f'compute: the matrix products, at {SHARE:.0%} of '
        f'{chip.peak_flops / 1e12:,.0f} TFLOP/s; more or faster devices help',
        'memory': f'memory: reading and writing at {chip.memory_bytes_per_s / 1e12:.2f} TB/s; '
        'more tokens for each reading of the weights help',
        'offload': f'the link to the host, at {chip.host_bytes_per_s / 1e9:.0f} GB/s; more tokens '
        'a step, or more devices without mesh.offload, help',
        'communication': 'communication between devices; fewer of them along its axes, or more '
        'tokens a step, help',
    }[step.bound_by]


def traffic(config: Config, memory: Memory) -> float:
    """Bytes that a device reads and writes in a step."""
    train, model = config.train, config.model
    state = memory.parameters + memory.optimizer + memory.gradients + memory.mean
    chunks = math.ceil(model.block_size / (train.logits_chunk or model.block_size))
    weights = memory.copies or memory.parameters
    each = 3 * weights + 2 * memory.activations + 2 * chunks * memory.logits
    return 2 * state + train.accumulate * each


def step_of(
    config: Config, memory: Memory, *, flops: float, communication_s: float, chip: Chip
) -> Step:
    """The time of a step.

    Args:
      config: of the run.
      memory: of a device.
      flops: of a step on each device.
      communication_s: of a step, from `communication.seconds`.
      chip: of the table.
    """
    compute_s = flops / (SHARE * chip.peak_flops)
    memory_s = traffic(config, memory) / chip.memory_bytes_per_s
    offload_s = 2 * memory.optimizer / chip.host_bytes_per_s if memory.offload else 0.0
    return Step(compute_s, memory_s, communication_s, offload_s)
