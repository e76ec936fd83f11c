"""Before a training starts: what cannot fit into the memory is refused, with what would fit."""

import dataclasses

from gptjax.config import Config
from gptjax.devices import free_memory
from gptjax.errors import UserError
from gptjax.parallel.mesh import Layout, Sizes
from gptjax.plan import memory, shapes
from gptjax.plan.early import LOWER, narrower
from gptjax.plan.units import in_bytes
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.training.learner import Learner
from gptjax.training.loop import layout_of

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
        + _what_would_fit(task, layout, available)
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
    return free_memory()


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
        arrays = [leaf for leaf in arrays if not leaf.is_optimizer]
    needed = memory.least(
        *(config, arrays, sizes),
        rows=rows or _rows(config, sizes),
        vocab_size=vocab_size,
    )
    return needed * (layout.mesh.size if _shared(layout) else 1)


def _what_would_fit(task: Learner, layout: Layout, available: int) -> str:
    config, sizes = task.config, layout.mesh.shape
    if isinstance(task, LanguageModel) and _needed(task, layout, 1) <= available:
        rows = _rows(config, sizes)
        for parts in shapes.divisors(rows):
            if _needed(task, layout, rows // parts) <= available:
                return f'try train.accumulate={config.train.accumulate * parts}'
    if not dataclasses.is_dataclass(task):
        return LOWER

    def needed(width: int) -> int:
        model = dataclasses.replace(config.model, n_embd=width)
        narrow = dataclasses.replace(config, model=model)
        return _needed(dataclasses.replace(task, config=narrow), layout)

    width = narrower(config.model, needed=needed, room=available)
    return f'try model.n_embd={width}' if width else LOWER
