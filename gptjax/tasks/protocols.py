"""What the rest of the program needs of a task, a protocol for each purpose.

Training needs `gptjax.training.learner.Learner`. A class that has all of these is a task.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from gptjax.config import Config, SampleConfig
from gptjax.console import Say
from gptjax.generation.requests import Piece
from gptjax.parallel.mesh import Layout
from gptjax.text.tokenizers import Tokenizer
from gptjax.training.learner import Learner
from gptjax.training.metrics import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Report:
    """Figures by their names, and the same as text for people."""

    figures: Mapping[str, Any]
    text: str

    @property
    def val_loss(self) -> float:
        """The loss, lower is better; in nats per token where the task has tokens."""
        return self.figures['val_loss']

    def __str__(self) -> str:
        return self.text


class Kept(Protocol):
    """Made from a configuration or from a work directory, and written to one."""

    reads: ClassVar[frozenset[str]]  # the dotted names of the knobs with an effect

    @classmethod
    def create(cls, config: Config, say: Say) -> Self:
        """The task with its data, which is fetched and prepared if need be."""

    @classmethod
    def load(cls, config: Config, workdir: Path) -> Self:
        """The task as `save` left it; without training data. Raises DamagedError."""

    def save(self, workdir: Path) -> None:
        """Writes all that using the task needs besides parameters and configuration."""

    def fingerprint(self) -> dict[str, Any]:
        """What has to be the same for a run to be continued: dotted names and JSON values."""


class Examined(Protocol):
    """Evaluated over a whole held-out split."""

    def examine(self, params: dict, layout: Layout) -> Report:
        """All figures of the whole split: at least `val_loss`."""

    def with_text(self, path: Path) -> Self:
        """The same task, to be evaluated on all of another text."""


class Writer(Protocol):
    """Generates texts."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Of prompts."""

    def prompts(self, given: Sequence[str]) -> tuple[str, ...]:
        """The prompts to answer, of those given; at least one, if need be the task's own."""

    def stream(self, params: dict, prompts: Sequence[str], config: SampleConfig) -> Iterator[Piece]:
        """The texts of prompts, `num_samples` each, rows of a prompt side by side.

        Prompts are checked at once, before the iterator is used. `Piece.id` is the number of the
        row, and every row has a last piece, with a `finish`.
        """

    def heading(self, prompt: str, *, number: int, count: int, given: bool) -> str:
        """What is printed before text `number` of `count`; given: the prompt is the user's."""

    def passages(self, prompt: str, text: str) -> list[tuple[str, str]]:
        """The paragraphs of a page that shows a text: (prompt, text) of each."""


class Described(Protocol):
    """Described to people."""

    def describe_model(self) -> str:
        """The model in some words, with the implementations that were chosen."""

    def describe_data(self) -> str:
        """The data in some words."""

    def preview(self) -> Report:
        """Sizes, vocabulary and examples of the data."""

    def verdict(self, rows: list[Row]) -> str:
        """What the curves of a run say, in words; may be empty."""

    def plot(self, rows: list[Row], title: str) -> 'Figure':
        """The curves of a run, from the rows of its metrics.jsonl."""

    def count_params(self) -> int:
        """Numbers in the model."""


class Task(Learner, Kept, Examined, Writer, Described, Protocol):
    """All of them."""
