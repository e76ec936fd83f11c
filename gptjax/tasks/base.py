"""What most tasks do alike; each says otherwise where it does not."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import jax

from gptjax.config import Config
from gptjax.errors import UserError
from gptjax.parallel.mesh import Layout
from gptjax.tasks import sizes
from gptjax.training import steps
from gptjax.training.diagnosis import diagnose
from gptjax.training.metrics import Row, plot_losses
from gptjax.training.optim import Optimizer, make_optimizer


class BaseTask:
    """A part of `gptjax.training.task.Task`."""

    config: Config
    continues: ClassVar[bool] = True

    def pretrained(self, layout: Layout) -> dict:
        """Nothing: all parameters start fresh."""
        del layout
        return {}

    def with_text(self, path: Path) -> 'BaseTask':
        """Raises UserError: the task is evaluated on its own text alone."""
        raise UserError(
            f'data.path={path} is not the text of this run, and task={self.config.task} '
            'can be evaluated on no other; leave it out'
        )

    def usable_prompts(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """Those that are not empty; without any, the one that lets the model begin by itself."""
        return tuple(filter(None, prompts)) or ('',)

    def verdict(self, rows: list[Row]) -> str:
        """Over- or underfitting, by the curves."""
        return diagnose(rows)

    def plot(self, rows: list[Row], path: Path, title: str) -> None:
        """Draws training and validation loss, with the verdict."""
        plot_losses(rows, path, title, self.verdict(rows))

    def count_params(self) -> int:
        """Numbers in the model."""
        return sizes.count(sizes.abstract_params(self))


class LossTask(BaseTask):
    """A task that lowers one loss: `loss(params, batch, key)` -> (its sum, the number of terms)."""

    @functools.cached_property
    def train_step(self):
        """(state, batch) -> (state, metrics), pure."""
        return steps.make_train_step(self.loss, self.optimizer, self.config.train.accumulate)

    @functools.cached_property
    def optimizer(self) -> Optimizer:
        """The configured rule and its schedule."""
        return make_optimizer(self.config.train)

    @functools.cached_property
    def eval_step(self):
        """(params, batch) -> (sum of losses, their number), jitted; without dropout."""
        return jax.jit(self.loss)
