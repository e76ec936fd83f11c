"""Translations and the GAN's sentences: models that generate by their task's own `stream`."""

import dataclasses
from collections.abc import Iterator

from gptjax.config import SampleConfig
from gptjax.errors import UserError
from gptjax.generation.requests import Piece
from gptjax.run import Run
from gptjax.serve.fields import Completion, FieldError
from gptjax.serve.models import Failure, Prompt, Served

# Fields that are a knob of `sample`, and all that are understood.
KNOBS = {
    'max_tokens': 'max_new_tokens',
    'n': 'num_samples',
    **{name: name for name in ('temperature', 'top_k', 'top_p', 'min_p', 'repetition_penalty')},
}
UNDERSTOOD = {*KNOBS, 'model', 'prompt', 'stream', 'stream_options', 'stop', 'seed', 'user'}


class Streams:
    """Generates by a task's own `stream`: for tasks that the engine does not decode."""

    MOST_AT_A_TIME = 8

    def __init__(self) -> None:
        self._streams: dict[int, Iterator[Piece]] = {}
        self._first_of: dict[int, int] = {}  # text -> the first one of its stream
        self._next_id = 0

    def submit(self, pieces: Iterator[Piece], config: SampleConfig) -> list[int]:
        """Queues the texts of a stream, which has num_samples rows; returns their numbers."""
        first, self._next_id = self._next_id, self._next_id + config.num_samples
        self._streams[first] = pieces
        numbers = list(range(first, self._next_id))
        self._first_of |= dict.fromkeys(numbers, first)
        return numbers

    @property
    def busy(self) -> bool:
        """Whether a text is wanted."""
        return bool(self._streams)

    @property
    def active(self) -> int:
        """Streams that advance."""
        return min(len(self._streams), self.MOST_AT_A_TIME)

    @property
    def waiting(self) -> int:
        """Streams that wait for others."""
        return len(self._streams) - self.active

    def step(self) -> list[Piece | Failure]:
        """The next piece of each stream that has its turn."""
        found: list[Piece | Failure] = []
        for first, stream in list(self._streams.items())[: self.MOST_AT_A_TIME]:
            try:
                piece = next(stream, None)
            except Exception as error:  # The other streams go on.
                del self._streams[first]
                found.append(Failure(first, error))
                continue
            if piece is None:
                del self._streams[first]
            else:
                found.append(dataclasses.replace(piece, id=first + piece.id))
                if piece.finish:
                    self._first_of.pop(first + piece.id, None)
        return found

    def cancel(self, number: int) -> None:
        """Ends the stream that has this text; its texts are of one request."""
        self._streams.pop(self._first_of.pop(number, -1), None)


class ServedStream(Served):
    """A model whose task is not a language model."""

    def __init__(self, name: str, run: Run) -> None:
        """Computes nothing yet."""
        super().__init__(name, run)
        self._streams = Streams()

    @property
    def source(self) -> Streams:
        """What generates."""
        return self._streams

    def warm_up(self) -> None:
        """Nothing: what is compiled depends on the prompts."""

    def check(self, completion: Completion) -> list[Prompt]:
        """The prompts; raises FieldError for fields that only language models have."""
        for name in sorted(completion.given - UNDERSTOOD):
            raise FieldError(f'{name} is not supported by {self.name}, {self._kind}', name)
        self._sampling(completion)
        return [Prompt(self._text(prompt)) for prompt in completion.prompts]

    def _text(self, prompt: str | tuple[int, ...]) -> str:
        if isinstance(prompt, str):
            return prompt
        raise FieldError(f'{self.name} takes prompts as text, not as token ids', 'prompt')

    @property
    def _kind(self) -> str:
        return f'a model with task={self.run.config.task}'

    def _sampling(self, completion: Completion) -> SampleConfig:
        """The run's own way of sampling, changed by the fields that were sent."""
        given = completion.given
        values = {
            knob: getattr(completion.fields, name) for name, knob in KNOBS.items() if name in given
        }
        values['num_samples'] = completion.fields.n
        if 'stop' in given:
            values['stop'] = completion.stop
        if 'seed' in given:
            values['seed'] = completion.seed
        try:
            return self.run.sampling(values)
        except UserError as error:
            raise FieldError(str(error).replace('sample.', '')) from None

    def submit(self, prompt: Prompt, completion: Completion) -> list[int]:
        """Queues the texts of a prompt; returns their numbers."""
        config = self._sampling(completion)
        prompts = self.run.task.prompts([prompt.text])[:1]
        try:
            pieces = self.run.task.stream(self.run.params, prompts, config)
        except UserError as error:
            raise FieldError(str(error), 'prompt') from None
        return self._streams.submit(pieces, config)
