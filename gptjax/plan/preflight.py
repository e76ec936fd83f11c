"""Before a training starts: what cannot fit into the memory is refused, with what would fit."""

import dataclasses
import re
from pathlib import Path

from gptjax.config import Config
from gptjax.errors import UserError
from gptjax.parallel.mesh import Layout, Sizes
from gptjax.plan import memory, shapes
from gptjax.plan.units import in_bytes
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.training.learner import Learner
from gptjax.training.loop import layout_of

MOST_TRIALS = 8  # of widths
LARGE = 2**26  # layers times the square of the width: smaller models are looked at once


def refuse_what_cannot_fit(task: Learner, layout: Layout) -> None:
    """Raises UserError if a train step needs more memory than the devices have.

    Only a lower bound of the need is compared (`memory.least`), so nothing is refused that runs. It
    takes less than a second and allocates nothing. Where the memory is unknown nothing is refused.
    """
    available = memory_of(layout)
    if available is None or (needed := _needed(task, layout)) <= available:
        return
    config = task.config
    where = 'this machine has' if _shared(layout) else 'each device has'
    rows = f' and {_rows(config, layout.mesh.shape)} rows on each device at a time'
    raise UserError(
        f'model.n_embd={config.model.n_embd} with model.n_layer={config.model.n_layer}{rows} '
        f'needs at least {in_bytes(needed)}, and {where} {in_bytes(available)} free; '
        + _what_would_fit(task, layout, needed, available=available)
    )


def refuse_before_data(config: Config) -> None:
    """As `refuse_what_cannot_fit`, of a large language model before its data are prepared.

    That may take hours. A vocabulary that is not known yet counts as one token.
    """
    model = config.model
    large = model.n_layer * model.n_embd**2 >= LARGE
    if config.task == 'language_model' and large and not config.train.init_from:
        task = shapes.of_vocabulary(config, shapes.KNOWN.get(config.data.tokenizer, 1))
        refuse_what_cannot_fit(task, layout_of(task))


def memory_of(layout: Layout) -> int | None:
    """Bytes that a device can hold; of a CPU those that all of its devices share. None: unknown."""
    if not _shared(layout):
        return (layout.mesh.devices.flat[0].memory_stats() or {}).get('bytes_limit')
    about = Path('/proc/meminfo')
    text = about.read_text() if about.exists() else ''
    found = dict(re.findall(r'^(\w+):\s+(\d+) kB', text, re.MULTILINE))
    if 'MemAvailable' not in found:
        return None
    # What the system can take back from caches is in MemAvailable.
    return 1024 * (int(found['MemAvailable']) + int(found.get('SwapFree', 0)))


def _shared(layout: Layout) -> bool:
    return layout.mesh.devices.flat[0].platform == 'cpu'


def _rows(config: Config, sizes: Sizes) -> int:
    return config.train.batch_size // config.train.accumulate // (sizes['data'] * sizes['fsdp'])


def _needed(task: Learner, layout: Layout, rows: int = 0) -> int:
    """As `memory.least`, of all devices that share their memory; `rows`: not the configured."""
    vocab_size = task.tokenizer.vocab_size if isinstance(task, LanguageModel) else 0
    config, sizes = task.config, layout.mesh.shape
    arrays = shapes.leaves(task)
    if layout.offload and not _shared(layout):
        arrays = [leaf for leaf in arrays if leaf.is_parameter]
    needed = memory.least(
        *(config, arrays, sizes),
        rows=rows or _rows(config, sizes),
        vocab_size=vocab_size,
    )
    return needed * (layout.mesh.size if _shared(layout) else 1)


def _what_would_fit(task: Learner, layout: Layout, needed: int, *, available: int) -> str:
    config, sizes = task.config, layout.mesh.shape
    if isinstance(task, LanguageModel) and _needed(task, layout, 1) <= available:
        rows = _rows(config, sizes)
        for parts in shapes.divisors(rows):
            if _needed(task, layout, rows // parts) <= available:
                return f'try train.accumulate={config.train.accumulate * parts}'
    step = config.model.n_head * (2 if config.model.position == 'rotary' else 1)
    width = config.model.n_embd
    for _ in range(MOST_TRIALS):
        # The need grows at most with the square of the width: this comes down from above.
        width = int(width * min(0.98, (available / needed) ** 0.5)) // step * step
        if width < step or not dataclasses.is_dataclass(task):
            break
        model = dataclasses.replace(config.model, n_embd=width)
        narrower = dataclasses.replace(task, config=dataclasses.replace(config, model=model))
        needed = _needed(narrower, layout)
        if needed <= available:
            return f'try model.n_embd={width}'
    return 'lower model.n_layer, model.block_size or train.batch_size, or use another machine'
