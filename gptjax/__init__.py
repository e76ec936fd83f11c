"""A GPT in JAX and Flax: train from the command line, use a trained run from Python.

run = gptjax.load('runs/char')
print(run.generate('ROMEO:', max_new_tokens=200, temperature=0.8))
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from gptjax import devices
from gptjax.errors import UserError

if TYPE_CHECKING:
    from gptjax.config import Config
    from gptjax.run import Run

__all__ = ['Config', 'Run', 'load', 'recipe', 'train']


def load(workdir: str | Path, *, checkpoint: str = 'best') -> 'Run':
    """The trained model of a work directory; see `gptjax.run.Run.open`."""
    devices.tune_cpu()
    from gptjax.run import Run

    return Run.open(workdir, checkpoint=checkpoint)


def recipe(name: str) -> 'Config':
    """The configuration of a built-in recipe, such as 'char:small'."""
    from gptjax.recipes import find

    return find(name)


def train(config: 'Config', workdir: str | Path) -> 'Run':
    """Trains a work directory, or continues it, and loads its best checkpoint.

    Raises UserError if something does not fit, or if training was stopped before it was finished.
    """
    devices.tune_cpu()
    from gptjax.trainer import train_run

    outcome = train_run(config, Path(workdir))
    if outcome is not None and outcome.stopped_by:
        raise UserError(f'training of {workdir} was stopped and saved; train again to continue it')
    return load(workdir)


def __getattr__(name: str) -> type:
    # Imported at their first use, so that `import gptjax` takes no time.
    if name in ('Config', 'Run'):
        return getattr(importlib.import_module(f'gptjax.{name.lower()}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
