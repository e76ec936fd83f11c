"""A GPT in JAX and Flax: train from the command line, use a trained run from Python.

run = gptjax.load('runs/char')
print(run.generate('ROMEO:', max_new_tokens=200, temperature=0.8))
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from gptjax.config import Config
    from gptjax.run import Run

__all__ = ['Config', 'Run', 'load']


def load(workdir: 'str | Path', *, checkpoint: str = 'best') -> 'Run':
    """The trained model of a work directory; see `gptjax.run.Run.open`."""
    from gptjax.parallel import devices
    from gptjax.run import Run

    devices.tune_cpu()
    return Run.open(workdir, checkpoint=checkpoint)


def __getattr__(name: str) -> type:
    # Imported at their first use, so that `import gptjax` takes no time.
    if name == 'Run':
        from gptjax.run import Run

        return Run
    if name == 'Config':
        from gptjax.config import Config

        return Config
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
