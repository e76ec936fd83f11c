"""All meshes of some devices, and how well each of them serves, by the closed forms."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gptjax.chips import CHIPS
from gptjax.config import Config, MeshConfig
from gptjax.parallel.mesh import Sizes
from gptjax.plan import communication, memory, roofline
from gptjax.plan.memory import Memory
from gptjax.plan.roofline import Step
from gptjax.plan.shapes import (
    Leaf,
    divisors,
    flops_per_token,
    leaves,
    recomputed_per_token,
    with_train,
)
from gptjax.tasks.language_model.task import LanguageModel

REMAT = ('none', *memory.KEPT)  # the values of train.remat
FILLED = 0.9  # of a chip's memory; the rest is left to the runtime, programs and fragments


class Candidate(NamedTuple):
    """A way to train on the devices."""

    sizes: Sizes
    accumulate: int
    remat: str
    memory: Memory
    step: Step
    fits: bool

    @property
    def rank(self) -> tuple:
        """What fits comes first, then what is fastest; of equals what needs less in sum."""
        return not self.fits, self.step.step_s, sum(self.step), self.memory.total


def evaluate(
    task: LanguageModel, arrays: Sequence[Leaf], sizes: Sizes, *, flops: float
) -> Candidate:
    """Memory and time of the task's configuration on a mesh of these sizes.

    Args:
      task: with its vocabulary.
      arrays: of the state, from `shapes.leaves`.
      sizes: of the axes.
      flops: of a step on all devices together, without what rematerialisation computes again.
    """
    config, vocab_size = task.config, task.tokenizer.vocab_size
    chip, target = CHIPS[config.plan.chip], memory.target_of(config)
    of_device = memory.of_device(config, arrays, sizes, vocab_size=vocab_size, target=target)
    found = communication.collectives(config, arrays, sizes, vocab_size=vocab_size, target=target)
    devices = sizes['data'] * sizes['fsdp'] * sizes['tensor']
    again = recomputed_per_token(task) * task.tokens_per_step()
    step = roofline.step_of(
        config,
        of_device,
        flops=(flops + again) / devices,
        communication_s=communication.seconds(found, sizes, chip),
        chip=chip,
    )
    fits = of_device.total <= FILLED * chip.memory_bytes
    train = config.train
    return Candidate(sizes, train.accumulate, train.remat, of_device, step, fits)


def meshes(config: Config) -> Iterator[tuple[dict[str, int], int]]:
    """Each (sizes, accumulate) of all devices that divides what it splits.

    data x fsdp divides the rows of a micro-batch, fsdp the width, tensor the heads and the width.
    """
    model, devices = config.model, config.plan.devices
    for tensor in divisors(devices):
        if model.n_head % tensor or model.n_embd % tensor:
            continue
        for fsdp in divisors(devices // tensor):
            data = devices // tensor // fsdp
            if model.n_embd % fsdp:
                continue
            for accumulate in divisors(config.train.batch_size):
                if config.train.batch_size // accumulate % (data * fsdp) == 0:
                    yield {'data': data, 'fsdp': fsdp, 'tensor': tensor}, accumulate


def best(task: LanguageModel, count: int) -> list[Candidate]:
    """The best ways to use all devices, the best first."""
    arrays, found = leaves(task), []
    flops = flops_per_token(task) * task.tokens_per_step()
    places = (False, True) if CHIPS[task.config.plan.chip].host_bytes_per_s else (False,)
    ways = itertools.product(meshes(task.config), REMAT, places)
    for (sizes, accumulate), remat, offload in ways:
        config = with_train(task.config, accumulate=accumulate, remat=remat)
        mesh = MeshConfig(**sizes, offload=offload)
        other = dataclasses.replace(task, config=dataclasses.replace(config, mesh=mesh))
        found.append(evaluate(other, arrays, sizes, flops=flops))
    return sorted(found, key=lambda candidate: candidate.rank)[:count]
