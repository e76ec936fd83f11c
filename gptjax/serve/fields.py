"""The fields of a request to /v1/completions, checked before anything is computed."""

import dataclasses
import json
import secrets
from typing import Any

from gptjax.config.schema import LARGEST_INT, Section, build, knob
from gptjax.errors import UserError, nearest
from gptjax.generation.rules import Rules
from gptjax.serve.slots import LIKELIEST

MOST_ROWS = 128  # texts of a request
MOST_TOKENS = 131_072  # new tokens of all texts of a request
MOST_PROMPT = 65_536  # tokens of a prompt
MOST_BIASED = 1_024  # tokens with a bias


class FieldError(UserError):
    """A request that cannot be answered, with the field that is wrong."""

    def __init__(self, message: str, field: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.field, self.status = field, status


@dataclasses.dataclass(frozen=True)
class Fields(Section):
    """Fields with a value of one type; names and defaults are OpenAI's, where it has the field."""

    model: str = ''  # empty: the first one
    max_tokens: int = knob(16, 'tokens to generate at most', low=0, high=16_384)
    n: int = knob(1, 'texts for each prompt', low=1, high=MOST_ROWS)
    best_of: int = knob(
        0, 'texts from which the n likeliest are taken; 0: n', low=0, high=MOST_ROWS
    )
    stream: bool = False
    logprobs: int = knob(
        -1, 'likeliest tokens to tell beside each one; -1: none', low=-1, high=LIKELIEST
    )
    echo: bool = False
    temperature: float = knob(1.0, 'randomness; 0 takes the likeliest token', low=0, high=2)
    top_k: int = knob(0, 'draw from the k likeliest tokens; 0: from all', low=0)
    top_p: float = knob(
        1.0, 'draw from the likeliest tokens of this total probability', above=0, high=1
    )
    min_p: float = knob(
        0.0, "leave out tokens below this part of the likeliest one's probability", low=0, high=1
    )
    repetition_penalty: float = knob(
        1.0, 'weakens tokens of the text so far; 1: off', above=0, high=100
    )
    presence_penalty: float = knob(
        0.0, 'subtracted from the logits of tokens of the text so far', low=-2, high=2
    )
    frequency_penalty: float = knob(
        0.0, 'subtracted for each time that a token is in the text so far', low=-2, high=2
    )
    user: str = ''  # told by clients for their own records; not kept


@dataclasses.dataclass(frozen=True)
class Completion:
    """A request to /v1/completions."""

    fields: Fields
    prompts: tuple[str | tuple[int, ...], ...]
    stop: tuple[str, ...]
    logit_bias: tuple[tuple[int, float], ...]
    seed: int
    include_usage: bool
    given: frozenset[str]  # names of the fields that were sent

    @property
    def drawn(self) -> int:
        """Texts that are generated for each prompt; of them `n` are sent."""
        return self.fields.best_of or self.fields.n

    @property
    def wants_scores(self) -> bool:
        """Whether log-probabilities are needed, if only to choose the likeliest texts."""
        return self.fields.logprobs >= 0 or self.drawn > self.fields.n

    @property
    def rules(self) -> Rules:
        """How to draw."""
        names = [field.name for field in dataclasses.fields(Rules) if field.name != 'logit_bias']
        plain = {name: getattr(self.fields, name) for name in names}
        return Rules(**plain, logit_bias=self.logit_bias)


PLAIN = [field.name for field in dataclasses.fields(Fields)]
KNOWN = sorted([*PLAIN, 'prompt', 'stop', 'logit_bias', 'seed', 'stream_options'])


def parse(body: bytes) -> Completion:
    """The request of a body; raises FieldError."""
    values = {name: value for name, value in parse_json(body).items() if value is not None}
    if 'suffix' in values:
        raise FieldError('suffix is not supported: the models only continue texts', 'suffix')
    for name in values:
        if name not in KNOWN:
            name = name[:80]
            raise FieldError(f'{name} is unknown; {nearest(name, KNOWN)}', name)
    completion = Completion(
        fields=_fields({name: values[name] for name in PLAIN if name in values}),
        prompts=_prompts(values.get('prompt', '')),
        stop=_stop(values.get('stop', ())),
        logit_bias=_bias(values.get('logit_bias', {})),
        seed=_seed(values.get('seed')),
        include_usage=_include_usage(values.get('stream_options', {})),
        given=frozenset(values),
    )
    _check_together(completion)
    return completion


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; raises FieldError."""

    def refuse(name: str) -> None:
        raise ValueError(f'{name} is not JSON')

    try:
        found = json.loads(body.decode('utf-8'), parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise FieldError(f'the body is not UTF-8: {error.reason} at byte {error.start}') from None
    except RecursionError:
        raise FieldError('the body has too many levels of nesting') from None
    except ValueError as error:
        raise FieldError(f'the body is not JSON: {error}') from None
    if not isinstance(found, dict):
        raise FieldError('the body must be a JSON object')
    return found


def text(value: Any, field: str) -> str:
    """A string that has a form in UTF-8; raises FieldError."""
    if not isinstance(value, str):
        raise FieldError(f'{field} must be a text', field)
    try:
        value.encode('utf-8')
    except UnicodeEncodeError:
        raise FieldError(f'{field} has half of a surrogate pair, which is no text', field) from None
    return value


def _fields(values: dict[str, Any]) -> Fields:
    try:
        return build(Fields, values)
    except UserError as error:
        message = str(error).replace('fields.', '')
        name = min((name for name in values if name in message), key=message.find, default=None)
        raise FieldError(message, name) from None


def _prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """One prompt or several, each a text or a list of token ids."""
    if isinstance(value, list) and value and all(type(item) is int for item in value):
        value = [value]
    items = value if isinstance(value, list) else [value]
    if not items or len(items) > MOST_ROWS:
        raise FieldError(f'prompt has {len(items)} items and must have 1 to {MOST_ROWS}', 'prompt')
    return tuple(_prompt(item) for item in items)


def _prompt(item: Any) -> str | tuple[int, ...]:
    if not isinstance(item, list):
        return text(item, 'prompt')
    if not item or len(item) > MOST_PROMPT or not all(type(token) is int for token in item):
        raise FieldError(
            f'a prompt must be a text or a list of 1 to {MOST_PROMPT:,} token ids', 'prompt'
        )
    return tuple(item)


def _stop(value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or len(items) > 4:
        raise FieldError('stop must be a text or a list of up to 4 texts', 'stop')
    for item in items:
        if not 0 < len(text(item, 'stop')) <= 256:
            raise FieldError('a text of stop must have 1 to 256 characters', 'stop')
    return tuple(items)


def _bias(value: Any) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, dict) or len(value) > MOST_BIASED:
        raise FieldError(
            f'logit_bias must be an object of up to {MOST_BIASED:,} token ids', 'logit_bias'
        )
    found = []
    for token, added in value.items():
        if not (token.isascii() and token.isdecimal() and len(token) < 10):
            raise FieldError(f'logit_bias: {token[:20]!r} is no token id', 'logit_bias')
        if type(added) not in (int, float) or not -100 <= added <= 100:
            raise FieldError('a value of logit_bias must be within -100 and 100', 'logit_bias')
        found.append((int(token), float(added)))
    return tuple(found)


def _seed(value: Any) -> int:
    """The seed; another one each time where none was given."""
    if value is None:
        return secrets.randbelow(LARGEST_INT)
    if type(value) is not int or abs(value) > LARGEST_INT:
        raise FieldError(f'seed must be a whole number of at most {LARGEST_INT}', 'seed')
    return value


def _include_usage(value: Any) -> bool:
    if not isinstance(value, dict) or not set(value) <= {'include_usage'}:
        raise FieldError('stream_options must be an object with include_usage', 'stream_options')
    found = value.get('include_usage', False)
    if not isinstance(found, bool):
        raise FieldError('include_usage must be true or false', 'stream_options')
    return found


def _check_together(completion: Completion) -> None:
    """Raises FieldError where values are wrong together."""
    fields = completion.fields
    if 'stream_options' in completion.given and not fields.stream:
        raise FieldError('stream_options needs stream=true', 'stream_options')
    if 0 < fields.best_of < fields.n:
        raise FieldError(f'best_of={fields.best_of} must be at least n={fields.n}', 'best_of')
    if fields.best_of > fields.n and fields.stream:
        raise FieldError('best_of needs whole texts; leave out stream', 'best_of')
    if fields.max_tokens == 0 and not fields.echo:
        raise FieldError('max_tokens=0 generates nothing; it needs echo=true', 'max_tokens')
    rows = len(completion.prompts) * completion.drawn
    if rows > MOST_ROWS:
        raise FieldError(
            f'{len(completion.prompts)} prompts with {completion.drawn} texts each are more than '
            f'{MOST_ROWS} texts; send several requests',
            'n',
        )
    if rows * fields.max_tokens > MOST_TOKENS:
        raise FieldError(
            f'{rows} texts of {fields.max_tokens} tokens are more than {MOST_TOKENS:,} tokens; '
            'send several requests',
            'max_tokens',
        )
