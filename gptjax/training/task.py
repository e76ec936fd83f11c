"""What the loop needs to know of a task. `gptjax/tasks/` has the tenants."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from gptjax.config import Config, SampleConfig
from gptjax.parallel.mesh import Layout
from gptjax.text.tokenizers import Tokenizer
from gptjax.training.metrics import Row
from gptjax.training.steps import Metrics, TrainState

Batch = dict[str, Any]


class Task(Protocol):
    """A model, its batches, its train step and its way of being evaluated."""

    config: Config
    tokenizer: Tokenizer  # of prompts
    continues: bool  # whether an answer continues its prompt, or stands for itself

    def init_state(self, key: jax.Array) -> TrainState:
        """The state before the first step. Pure: it is traced."""

    def pretrained(self, layout: Layout) -> dict:
        """Collections of parameters that replace fresh ones of the same name; often none."""

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One optimizer step. Pure: it is traced once. Metrics have at least `loss`."""

    def train_batch(self, step: int) -> Batch:
        """The host arrays of a step, the same at every call; the first axis is the batch."""

    def evaluate(self, params: dict, layout: Layout, *, whole: bool = False) -> dict[str, float]:
        """Measures the parameters on held-out data: at least `val_loss`, lower is better.

        Args:
          params: on the devices.
          layout: puts host batches there too.
          whole: over the whole split; otherwise on a sample, the same at every call.
        """

    def describe_figures(self, figures: dict[str, float]) -> str:
        """What `evaluate` found over the whole split, as a line for people."""

    def usable_prompts(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """The prompts to answer, of those given; there is at least one, if need be of its own."""

    def stream_text(
        self, params: dict, prompts: Sequence[str], config: SampleConfig
    ) -> Iterator[list[str]]:
        """The answers to prompts, num_samples each; complains of the prompts at once.

        Yields:
          if the task `continues`, the next piece of each row; otherwise the whole texts of the
          next rows.
        """

    def with_text(self, path: Path) -> 'Task':
        """The same task, to be evaluated on all of another text."""

    def verdict(self, rows: list[Row]) -> str:
        """What the curves of a run say, in words; may be empty."""

    def plot(self, rows: list[Row], path: Path, title: str) -> None:
        """Draws the curves of a run, of the rows of its metrics.jsonl."""

    def fingerprint(self) -> dict[str, Any]:
        """What has to be the same for a run to be continued: dotted names and JSON values."""

    def describe_model(self) -> str:
        """The model in some words, for people: also which implementations were chosen."""

    def describe_data(self) -> str:
        """The data in some words, for people."""

    def tokens_per_step(self) -> int:
        """How many tokens an optimizer step learns from."""

    def count_params(self) -> int:
        """Numbers in the model."""

    def flops_per_token(self) -> float:
        """Floating-point operations that training needs for each of them."""
