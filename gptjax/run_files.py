"""Finding what is in the work directory of a run."""

import logging
from collections.abc import Callable
from pathlib import Path

from gptjax import manifest
from gptjax.config import Config, from_json, to_json
from gptjax.console import say
from gptjax.errors import UserError
from gptjax.parallel.mesh import Layout
from gptjax.training.checkpoint import Checkpoints
from gptjax.training.learner import Learner
from gptjax.training.loop import abstract_state
from gptjax.training.steps import TrainState

# Orbax warns of a file of its own that has no use here, each time that a run is loaded.
logging.getLogger('absl').addFilter(
    lambda record: 'Metadata file does not exist' not in record.getMessage()
)


def config_path(workdir: Path) -> Path:
    """Where the resolved configuration of a run is; the last file that a new run writes."""
    return workdir / manifest.CONFIG


def checkpoints(workdir: Path, keep: int = 2) -> Checkpoints:
    """The checkpoints of a run."""
    return Checkpoints(workdir / 'checkpoints', keep, say)


def is_trained(workdir: Path) -> bool:
    """Whether there is a model in the work directory."""
    return config_path(workdir).exists() and bool(checkpoints(workdir).saved())


def save(
    config: Config, write: Callable[[Path], None], workdir: Path, *, continues: bool = False
) -> None:
    """Writes all files of a run besides its checkpoints, with their sums.

    `write` writes the files of the task into a folder. For a run that continues only the
    configuration is new, and the sums where there are none.
    """
    if not (continues and manifest.exists(workdir)):
        manifest.save(write, workdir, keep=continues)
    manifest.save_config(to_json(config).encode(), workdir)


def load_config(workdir: Path) -> Config:
    """The configuration of a run; raises UserError if it is unreadable or any file is damaged."""
    path = config_path(workdir)
    if path.exists():
        manifest.check(workdir)
    try:
        return from_json(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise UserError(
            f'there is no run in {workdir} (no config.json); name the work directory '
            'of a trained or imported model'
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read {path} ({error}); restore it from a backup') from None


def restore(task: Learner, workdir: Path, which: str, layout: Layout) -> tuple[int, dict]:
    """The step and parameters of the 'best' or the 'latest' sound checkpoint of a run.

    Raises UserError if there is none, or if it does not fit the task.
    """
    saved = checkpoints(workdir)
    order = saved.best_first() if which == 'best' else saved.saved()
    return _used(saved, abstract_state(task, layout), order)


def restore_step(task: Learner, workdir: Path, step: int, layout: Layout) -> dict:
    """The parameters of one checkpoint, which has to be sound and fit the task (UserError)."""
    return _used(checkpoints(workdir), abstract_state(task, layout), [step])[1]


def _used(saved: Checkpoints, like: TrainState, order: list[int]) -> tuple[int, dict]:
    """The step and `TrainState.used` of the first sound candidate; nothing else is read."""
    if not like.mean:
        return saved.restore(like, order, 'params')
    step, mean = saved.restore(like, order, 'mean')
    if like.params.keys() <= like.mean.keys():
        return step, mean
    return step, saved.restore(like, [step], 'params')[1] | mean
