"""The models of a server: a run at a checkpoint, and what generates its texts."""

import abc
import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Protocol

from gptjax.generation.requests import Piece
from gptjax.run import Run
from gptjax.serve.fields import Completion, FieldError
from gptjax.serve.scoring import Scores


class Source(Protocol):
    """Generates texts, some at a time. Used by one thread."""

    @property
    def busy(self) -> bool:
        """Whether a text is wanted."""

    @property
    def active(self) -> int:
        """Slots in use."""

    @property
    def waiting(self) -> int:
        """Texts without a slot."""

    def step(self) -> Sequence['Piece | Failure']:
        """The next piece of each text that has a slot."""

    def cancel(self, number: int) -> None:
        """Forgets a text and frees its slot."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a text cannot go on, in place of a piece."""

    id: int
    error: Exception


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt, checked: its text and, for language models, its token ids."""

    text: str
    ids: tuple[int, ...] = ()


class Served(abc.ABC):
    """A model that answers requests."""

    def __init__(self, name: str, run: Run) -> None:
        self.name, self.run = name, run
        identity = f'{run.workdir.resolve()} {run.step} {run.config}'.encode()
        self.fingerprint = 'gptjax-' + hashlib.sha256(identity).hexdigest()[:12]

    @property
    @abc.abstractmethod
    def source(self) -> Source:
        """What generates."""

    @abc.abstractmethod
    def warm_up(self) -> None:
        """Compiles what requests need, as far as that is known before they come."""

    @abc.abstractmethod
    def check(self, completion: Completion) -> list[Prompt]:
        """The prompts, if the model can do what is asked; raises FieldError."""

    @abc.abstractmethod
    def submit(self, prompt: Prompt, completion: Completion) -> list[int]:
        """Queues the texts of a prompt; returns their numbers. Called by the source's thread."""

    def score(self, ids: tuple[int, ...]) -> Scores:
        """Log-probabilities of the tokens of a prompt but the first, for `echo`."""
        del ids
        raise FieldError(f'{self.name} has no log-probabilities of a text', 'logprobs')

    def token_texts(self, ids: Sequence[int], after: int | None = None) -> list[bytes]:
        """The text of each token in UTF-8, where the first one follows the id `after`."""
        to_bytes = self.run.task.tokenizer.to_bytes
        return [to_bytes([token], last) for token, last in zip(ids, [after, *ids], strict=False)]
