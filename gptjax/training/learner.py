"""What training needs of a task: eight members. `gptjax/tasks/` has the implementations."""

from typing import Protocol

import jax

from gptjax.config import Config
from gptjax.parallel.mesh import Layout
from gptjax.training.steps import Batch, Metrics, TrainState


class Learner(Protocol):
    """A model, its batches and its train step."""

    @property
    def config(self) -> Config:
        """Of the run."""

    def init_state(self, key: jax.Array) -> TrainState:
        """The state before the first step. Pure: it is traced."""

    def pretrained(self, layout: Layout) -> dict:
        """Collections of parameters that replace fresh ones of the same name; often none."""

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One optimizer step. Pure: it is traced once. Metrics have at least `loss`."""

    def train_batch(self, step: int) -> Batch:
        """The host arrays of a step, the same at every call; the first axis is the batch."""

    def validate(self, params: dict, layout: Layout) -> dict[str, float]:
        """Figures of a held-out sample, the same at every call: at least `val_loss`."""

    def tokens_per_step(self) -> int:
        """Tokens that an optimizer step learns from."""

    def flops_per_token(self) -> float:
        """Floating-point operations of training for each of them, forward and backward."""
