"""Before JAX is imported, which may take two seconds: blocks that cannot fit are refused."""

import functools
import os
from collections.abc import Callable

from gptjax.config import Config, ModelConfig
from gptjax.devices import free_memory, may_have_accelerator
from gptjax.errors import UserError
from gptjax.plan.units import in_bytes

TASKS = ('language_model', 'translation')  # whose models have model.n_layer blocks or more
MOMENTS = {'adamw': 2, 'adam': 2, 'muon': 1, 'sgd': 0}  # of each number in a matrix of a block
LARGEST_VOCABULARY = 60_000  # that is usual
FILLED = 0.85  # of the memory, by the width that is proposed
MOST_TRIALS = 8  # of widths
LOWER = 'lower model.n_layer, model.block_size or train.batch_size, or use another machine'


def refuse_blocks_that_cannot_fit(config: Config) -> None:
    """Raises UserError if the blocks of a model cannot be trained in the memory of this machine.

    Only their matrices count, with gradients and what the optimizer keeps of them, so nothing is
    refused that runs. `preflight` looks more closely at what passes, at models that start from
    another run's, and at machines that may have an accelerator.
    """
    model, available = config.model, free_memory()
    known = config.task in TASKS and model.kind == 'decoder' and not config.train.init_from
    if not known or may_have_accelerator():
        return
    if available is None or (needed := _bytes(config, model.n_embd)) <= available:
        return
    needed_by = functools.partial(_roughly_all, config)
    width = narrower(model, needed=needed_by, room=FILLED * available)
    raise UserError(
        f'model.n_embd={model.n_embd} with model.n_layer={model.n_layer} needs at least '
        f'{in_bytes(needed)}, and this machine has {in_bytes(available)} free; '
        + (f'try model.n_embd={width}' if width else LOWER)
    )


def narrower(model: ModelConfig, *, needed: Callable[[int], float], room: float) -> int | None:
    """A smaller width that the heads can share, whose need has room; None if there is none.

    The need grows at most with the square of the width, so this comes down from above.
    """
    width, step = model.n_embd, model.n_head * (2 if model.position == 'rotary' else 1)
    for _ in range(MOST_TRIALS):
        width = int(width * min(0.98, (room / needed(width)) ** 0.5)) // step * step
        if width < step:
            return None
        if needed(width) <= room:
            return width
    return None


def _bytes(config: Config, width: int) -> int:
    """What the matrices of all blocks need at least."""
    model = config.model
    numbers = 4 * width**2 + 2 * width * _hidden(config, width)
    return model.n_layer * numbers * _each(config)


def _roughly_all(config: Config, width: int) -> int:
    """What a step needs on all devices of a CPU; rather too much than too little."""
    model, train = config.model, config.train
    entries = LARGEST_VOCABULARY * (1 if model.tied_head else 2) + model.ngram * model.ngram_rows
    tables = entries * width * _each(config)
    devices = int(os.environ.get('JAX_NUM_CPU_DEVICES', '1'))
    copies = config.mesh.data if config.mesh.data > 0 else devices
    rows = train.batch_size // train.accumulate
    activations = rows * model.block_size * model.n_layer * (width + _hidden(config, width))
    logits = rows * (train.logits_chunk or model.block_size) * LARGEST_VOCABULARY
    state = copies * (_bytes(config, width) + tables)
    return state + 4 * (activations + logits)


def _hidden(config: Config, width: int) -> int:
    return config.model.n_hidden or 4 * width


def _each(config: Config) -> int:
    """Bytes of a number that learns."""
    train = config.train
    moments = MOMENTS[train.optimizer]
    first = 2 if train.moment_dtype == 'bfloat16' else 4
    optimizer = min(moments, 1) * first + max(moments - 1, 0) * 4
    gradient = 2 * (train.grad_clip > 0)  # Of all at a time, in the smallest type.
    return 4 + optimizer + gradient + 4 * (train.average > 0)
