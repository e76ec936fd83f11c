"""What a request to /v1/completions may say; each refusal names the field and the reason."""

import dataclasses
import json

import pytest

from gptjax.serve import fields
from gptjax.serve.fields import FieldError, parse


def sent(**values) -> bytes:
    return json.dumps({'prompt': 'a', **values}).encode()


def test_defaults_are_those_of_openai():
    found = parse(b'{}')
    assert found.prompts == ('',)
    assert dataclasses.asdict(found.fields) == {
        'model': '', 'max_tokens': 16, 'n': 1, 'best_of': 0, 'stream': False, 'logprobs': -1,
        'echo': False, 'temperature': 1.0, 'top_k': 0, 'top_p': 1.0, 'min_p': 0.0,
        'repetition_penalty': 1.0, 'presence_penalty': 0.0, 'frequency_penalty': 0.0, 'user': '',
    }  # fmt: skip
    assert parse(b'{}').seed != parse(b'{}').seed


def test_every_field_is_read_and_null_is_the_default():
    given = {
        'temperature': 0, 'n': 2, 'stop': ['x', 'yz'], 'seed': -5, 'logit_bias': {'3': -1.5},
        'top_k': 4, 'presence_penalty': 1,
        'stream': True, 'stream_options': {'include_usage': True},
    }  # fmt: skip
    found = parse(sent(**given))
    assert found.rules.logit_bias == ((3, -1.5),)
    assert (found.rules.temperature, found.rules.top_k, found.rules.presence_penalty) == (0, 4, 1)
    assert (found.stop, found.seed, found.include_usage) == (('x', 'yz'), -5, True)
    nothing = parse(json.dumps(dict.fromkeys(fields.KNOWN)).encode())
    assert dataclasses.replace(nothing, seed=0) == dataclasses.replace(parse(b'{}'), seed=0)


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ('a', ('a',)),
        (['a', 'b'], ('a', 'b')),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        ([[1], 'b'], ((1,), 'b')),
    ],
)
def test_prompts(given, expected):
    assert parse(sent(prompt=given)).prompts == expected


REFUSED = [
    (b'', 'the body is not JSON', None),
    (b'[]', 'the body must be a JSON object', None),
    (b'{"prompt": "\xff"}', 'the body is not UTF-8: invalid start byte at byte 12', None),
    (b'{"temperature": NaN}', 'NaN is not JSON', None),
    (b'{"temperature": -Infinity}', '-Infinity is not JSON', None),
    (b'{"seed": ' + b'9' * 5000 + b'}', 'the body is not JSON', None),
    (b'[' * 100_000, 'too many levels of nesting', None),
    (b'{"prompt": "\\ud800"}', 'half of a surrogate pair', 'prompt'),
    (sent(temperature=2.5), 'temperature=2.5 must be at most 2', 'temperature'),
    (b'{"temperature": 1e999}', 'temperature=inf must be at most 2', 'temperature'),
    (sent(temperature='hot'), "temperature='hot' must be a number", 'temperature'),
    (sent(temperature=True), 'temperature=True must be a number', 'temperature'),
    (sent(max_tokens=1.5), 'max_tokens=1.5 must be a whole number', 'max_tokens'),
    (sent(max_tokens=-1), 'max_tokens=-1 must be at least 0', 'max_tokens'),
    (sent(max_tokens=0), 'max_tokens=0 generates nothing; it needs echo=true', 'max_tokens'),
    (sent(max_tokens=10**9), 'max_tokens=1000000000 must be at most 16384', 'max_tokens'),
    (sent(n=0), 'n=0 must be at least 1', 'n'),
    (sent(n=65, prompt=['a', 'b']), '2 prompts with 65 texts each are more than 128', 'n'),
    (sent(n=16, max_tokens=16_384), '16 texts of 16384 tokens are more than 131,072', 'max_tokens'),
    (sent(best_of=2, n=3), 'best_of=2 must be at least n=3', 'best_of'),
    (sent(best_of=2, stream=True), 'best_of needs whole texts', 'best_of'),
    (sent(logprobs=11), 'logprobs=11 must be at most 10', 'logprobs'),
    (sent(suffix='x'), 'suffix is not supported', 'suffix'),
    (sent(temprature=1), 'temprature is unknown; did you mean temperature', 'temprature'),
    (sent(prompt=3), 'prompt must be a text', 'prompt'),
    (sent(prompt=[]), 'prompt has 0 items and must have 1 to 128', 'prompt'),
    (sent(prompt=['a'] * 129), 'prompt has 129 items', 'prompt'),
    (sent(prompt=[[]]), 'a list of 1 to 65,536 token ids', 'prompt'),
    (sent(prompt=[[1, 'a']]), 'a list of 1 to 65,536 token ids', 'prompt'),
    (sent(stop=['']), 'a text of stop must have 1 to 256 characters', 'stop'),
    (sent(stop=['a'] * 5), 'stop must be a text or a list of up to 4 texts', 'stop'),
    (sent(stop={'a': 1}), 'stop must be a text or a list', 'stop'),
    (sent(seed=2**40), 'seed must be a whole number of at most 2147483647', 'seed'),
    (sent(seed='1'), 'seed must be a whole number', 'seed'),
    (sent(logit_bias={'x': 1}), "logit_bias: 'x' is no token id", 'logit_bias'),
    (sent(logit_bias={'1': 101}), 'within -100 and 100', 'logit_bias'),
    (sent(logit_bias=[1]), 'logit_bias must be an object', 'logit_bias'),
    (sent(stream_options={}), 'stream_options needs stream=true', 'stream_options'),
    (sent(stream=True, stream_options=3), 'an object with include_usage', 'stream_options'),
    (
        sent(stream=True, stream_options={'include_usage': 1}),
        'include_usage must be true or false',
        'stream_options',
    ),
]


@pytest.mark.parametrize(('body', 'message', 'field'), REFUSED)
def test_what_cannot_be_honoured_is_refused(body, message, field):
    with pytest.raises(FieldError) as refused:
        parse(body)
    assert message in str(refused.value)
    assert refused.value.field == field
