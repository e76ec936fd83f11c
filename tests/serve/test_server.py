"""The server as clients see it: the client library of OpenAI, plain HTTP, and bare sockets."""

import asyncio
import contextlib
import json
import re
import shutil
import socket

import jax
import numpy as np
import pytest

from gptjax import run_files
from gptjax.generation import engine
from gptjax.run import Run
from gptjax.training.loop import abstract_state
from tests.conftest import ROOT, optional
from tests.serve.conftest import serving, soon

httpx, openai = optional('httpx'), optional('openai')
pytestmark = pytest.mark.serve

PROMPT = 'To be'
JSON = {'content-type': 'application/json'}
MIXED = [
    {'temperature': 0.0, 'max_tokens': 30},
    {'temperature': 0.7, 'top_k': 5, 'max_tokens': 50, 'seed': 3},
    {'temperature': 1.5, 'top_p': 0.8, 'max_tokens': 9, 'seed': 4, 'stop': ['e']},
    {'seed': 5, 'frequency_penalty': 1.0, 'presence_penalty': -0.5, 'max_tokens': 20},
    {'seed': 6, 'logit_bias': {'3': 5, '4': -100}, 'n': 2},
    {'seed': 7, 'repetition_penalty': 1.3, 'min_p': 0.1, 'best_of': 3, 'max_tokens': 12},
    {'seed': 8, 'prompt': PROMPT * 30, 'max_tokens': 40, 'logprobs': 4},
    {'seed': 9, 'prompt': ['T', 'be'], 'n': 2, 'max_tokens': 5, 'stop': ['o b']},
]


@pytest.fixture(scope='module')
def client(address):
    return openai.OpenAI(base_url=f'{address}/v1', api_key='none', max_retries=0)


def ask(address, **values):
    """The choices of a request, as JSON."""
    body = {'prompt': PROMPT, **values}
    answer = httpx.post(f'{address}/v1/completions', json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()['choices']


def texts_of(choices) -> list[tuple]:
    """What is the same for everyone: all but the last bits of log-probabilities."""
    ids = [choice['logprobs'] and choice['logprobs']['token_ids'] for choice in choices]
    return [(c['text'], c['finish_reason'], own) for c, own in zip(choices, ids, strict=True)]


def joined(address, **values):
    """The texts and reasons of a stream's choices."""
    found: dict[int, list] = {}
    body = {'prompt': PROMPT, 'stream': True, **values}
    with httpx.stream('POST', f'{address}/v1/completions', json=body, timeout=60) as answer:
        lines = [line[6:] for line in answer.iter_lines() if line]
    assert lines[-1] == '[DONE]'
    for line in lines[:-1]:
        for choice in json.loads(line)['choices']:
            text, _ = found.get(choice['index'], ('', None))
            found[choice['index']] = (text + choice['text'], choice['finish_reason'])
    return [found[index] for index in sorted(found)]


def test_the_client_of_openai_gets_what_sample_prints(client, runs):
    expected = runs[0].generate(PROMPT, max_new_tokens=60, temperature=0.8, seed=5)
    how = {'model': 'char', 'prompt': PROMPT, 'max_tokens': 60, 'temperature': 0.8, 'seed': 5}
    whole = client.completions.create(**how)
    assert whole.choices[0].text == expected
    assert whole.choices[0].finish_reason == 'length'
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (len(PROMPT), 60)
    stream = list(
        client.completions.create(**how, stream=True, stream_options={'include_usage': True})
    )
    assert ''.join(chunk.choices[0].text for chunk in stream[:-1]) == expected
    assert stream[-1].choices == []
    assert stream[-1].usage == whole.usage
    assert {chunk.system_fingerprint for chunk in stream} == {whole.system_fingerprint}
    several = client.completions.create(**how, n=3)
    again = runs[0].generate(PROMPT, max_new_tokens=60, temperature=0.8, seed=5, num_samples=3)
    assert [choice.text for choice in several.choices] == again
    ids = runs[0].task.tokenizer.encode(PROMPT).tolist()
    assert client.completions.create(**{**how, 'prompt': ids}).choices[0].text == expected


@pytest.mark.parametrize('page', ['README.md', 'docs/serving.md'])
def test_the_python_of_the_documentation_runs(page, address, runs, capsys):
    blocks = re.findall(r'^```python\n(.*?)^```', (ROOT / page).read_text(), re.S | re.M)
    (code,) = (block for block in blocks if 'import openai' in block)
    exec(code.replace('http://127.0.0.1:8000', address).replace('ROMEO', 'To'), {})
    how = {'max_new_tokens': 200, 'temperature': 0.8, 'seed': 1}
    assert capsys.readouterr().out == runs[0].generate('To:', **how)


def test_models_have_a_name_for_each_checkpoint(client, runs):
    step = runs[0].step
    names = [model.id for model in client.models.list()]
    assert names[:2] == ['char', f'char@{step}']
    assert 'translation' in names
    assert client.models.retrieve(f'char@{step}').id == f'char@{step}'
    how = {'prompt': PROMPT, 'max_tokens': 20, 'seed': 1}
    best, same = (client.completions.create(model=name, **how) for name in ('char', f'char@{step}'))
    assert best.choices[0].text == same.choices[0].text
    with pytest.raises(openai.NotFoundError, match='there is no model'):
        client.completions.create(model='char@99999', prompt='a')


def test_echo_gives_the_log_probabilities_of_the_prompt(client, runs):
    text = 'To be, or not'
    expected = runs[0].score(text).log_probs
    how = {'model': 'char', 'prompt': text, 'echo': True, 'logprobs': 3, 'seed': 2}
    nothing = client.completions.create(**how, max_tokens=0).choices[0]
    assert nothing.text == text
    logs = nothing.logprobs
    assert logs.tokens == list(text)
    assert logs.text_offset == list(range(len(text)))
    assert (logs.token_logprobs[0], logs.top_logprobs[0]) == (None, None)
    np.testing.assert_allclose(logs.token_logprobs[1:], expected, atol=1e-5)
    rows = list(zip(logs.tokens, logs.token_logprobs, logs.top_logprobs, strict=True))
    for token, score, top in rows[1:]:
        assert top[token] == score  # The same float: evaluation suites compare with ==.
        assert 3 <= len(top) <= 4
    more = client.completions.create(**how, max_tokens=3).choices[0]
    assert more.text.startswith(text)
    assert ''.join(more.logprobs.tokens) == more.text
    assert more.logprobs.token_logprobs[: len(text)] == logs.token_logprobs
    longer = runs[0].score(more.text).log_probs
    np.testing.assert_allclose(more.logprobs.token_logprobs[1:], longer, atol=1e-5)
    assert {len(x) for x in more.logprobs.model_dump().values()} == {len(text) + 3}
    empty = client.completions.create(**{**how, 'prompt': ''}, max_tokens=3).choices[0]
    assert ''.join(empty.logprobs.tokens) == empty.text


def test_tokens_joined_are_the_text_also_where_a_stop_string_ends_it(address):
    for seed in range(6):
        how = {'max_tokens': 60, 'seed': seed, 'logprobs': 2, 'stop': ['th', 'e', 'nd of']}
        for echo in (False, True):
            (whole,) = ask(address, **how, echo=echo)
            logs = whole['logprobs']
            assert ''.join(logs['tokens']) == whole['text']
            assert logs['text_offset'] == list(range(len(whole['text'])))
            assert len({len(entries) for entries in logs.values()}) == 1
            assert joined(address, **how, echo=echo) == [(whole['text'], whole['finish_reason'])]


def test_best_of_takes_the_likeliest(client):
    how = {'model': 'char', 'prompt': PROMPT, 'max_tokens': 8, 'seed': 4, 'logprobs': 0}
    every = client.completions.create(**how, n=5).choices
    means = [np.mean(choice.logprobs.token_logprobs) for choice in every]
    best = client.completions.create(**how, n=2, best_of=5).choices
    wanted = sorted(np.argsort(means)[-2:])
    assert [choice.text for choice in best] == [every[i].text for i in wanted]


@pytest.mark.parametrize('values', MIXED, ids=lambda values: next(iter(values)))
def test_streamed_text_joined_is_the_whole_text(address, values):
    values = {'seed': 1, **values}
    whole = ask(address, **values)
    if 'best_of' not in values:
        parts = joined(address, **values)
        assert parts == [(choice['text'], choice['finish_reason']) for choice in whole]
    for choice in whole:
        for stop in {'stop': [], **values}['stop']:
            assert stop not in choice['text']


def test_any_mix_of_requests_is_as_if_alone_and_compiles_nothing(address, metrics):
    requests = [{'prompt': PROMPT, 'seed': 1, **values} for values in MIXED]
    expected = [ask(address, **values) for values in requests]
    compiled = metrics()['gptjax_compilations_total']

    async def crowd(seed: int):
        order = np.random.default_rng(seed).permutation(3 * len(requests)) % len(requests)
        async with httpx.AsyncClient(timeout=120) as client:

            async def one(i: int):
                await asyncio.sleep(0.002 * i * (seed % 3))
                answer = await client.post(f'{address}/v1/completions', json=requests[i])
                assert texts_of(answer.json()['choices']) == texts_of(expected[i])

            await asyncio.gather(*(one(int(i)) for i in order))

    for seed in range(4):
        asyncio.run(crowd(seed))
    assert metrics()['gptjax_compilations_total'] == compiled
    assert metrics()['gptjax_requests_total{status="200"}'] > 100


def test_a_gan_client_that_leaves_ends_no_other_text(address, runs):
    (expected,) = ask(address, model='gan', prompt='', seed=2)
    for n in (1, 3):
        body = {'model': 'gan', 'prompt': '', 'n': n, 'seed': 1}
        bare(address, json.dumps(body).encode()).close()
        assert ask(address, model='gan', prompt='', seed=2) == [expected]


def test_other_tasks_are_served_and_refuse_what_they_cannot(client, runs):
    _, translation, gan = runs
    source = translation.task.prompts(())[0]
    found = client.completions.create(model='translation', prompt=source, max_tokens=8)
    assert found.choices[0].text == translation.generate(source, max_new_tokens=8)
    texts = client.completions.create(model='gan', prompt='', n=3, seed=4).choices
    assert [choice.text for choice in texts] == gan.generate('', num_samples=3, seed=4)
    for how, message in [
        ({'logprobs': 1}, 'logprobs is not supported by gan, a model with task=gan'),
        ({'logit_bias': {'1': 1}}, 'logit_bias is not supported'),
        ({'extra_body': {'top_k': 3}}, 'top_k=3 has no effect with task=gan'),
        ({'prompt': [1, 2]}, 'gan takes prompts as text, not as token ids'),
    ]:
        with pytest.raises(openai.BadRequestError, match=message):
            client.completions.create(**{'model': 'gan', 'prompt': '', **how})
    with pytest.raises(openai.BadRequestError, match='is not in the vocabulary'):
        client.completions.create(model='translation', prompt='Ж')


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'suffix': 'x'}, 'suffix is not supported'),
        ({'prompt': 'Ж'}, "the character 'Ж'"),
        ({'prompt': [1, 10**6]}, '1000000 is no token id: they are 0 to'),
        ({'logit_bias': {'5000': 1}}, 'logit_bias: 5000 is no token id'),
        ({'prompt': PROMPT * 30, 'echo': True, 'logprobs': 1}, 'echo with logprobs takes up to'),
    ],
)
def test_what_the_model_cannot_do_is_a_400(address, values, message):
    answer = httpx.post(f'{address}/v1/completions', json={'prompt': PROMPT, **values}, timeout=60)
    assert answer.status_code == 400
    error = answer.json()['error']
    assert message in error['message']
    assert error.keys() == {'message', 'type', 'param', 'code'}
    assert error['param'] == next(iter(values))


@pytest.mark.parametrize(
    ('method', 'path', 'how', 'status', 'message'),
    [
        ('GET', '/nothing', {}, 404, 'Not Found'),
        ('GET', '/v1/completions', {}, 405, 'Method Not Allowed'),
        ('POST', '/v1/completions', {'content': b'{}'}, 415, 'must be application/json'),
        (
            *('POST', '/v1/completions', {'content': b' ' * 1_000_001, 'headers': JSON}),
            *(413, 'the body has more than 1,000,000 bytes'),
        ),
        ('POST', '/v1/completions', {'content': b'{"a"', 'headers': JSON}, 400, 'is not JSON'),
        ('GET', '/healthz', {'headers': {'host': 'evil.example'}}, 403, 'for the host'),
        ('GET', '/', {'headers': {'origin': 'http://evil.example'}}, 403, 'may not call'),
        ('GET', '/explain', {'headers': {'sec-fetch-site': 'cross-site'}}, 403, 'may not ask'),
        ('GET', '/explain?model=none', {}, 404, 'there is no model'),
        ('POST', '/look', {'json': {}}, 400, 'char is a language model; GET /explain shows it'),
        ('POST', '/look', {'json': {'model': 'gan', 'seed': 'x'}}, 400, 'must be a whole number'),
        ('POST', '/look', {'json': {'model': 'gan', 'size': 1}}, 400, 'size is unknown'),
        ('POST', '/look', {'json': {'model': 'gan', 'seed': -1}}, 400, 'must be at least 0'),
        ('POST', '/look', {'json': {'model': 'translation', 'prompt': 1}}, 400, 'must be a text'),
        ('GET', '/v1/models/none', {}, 404, 'there is no model'),
        ('GET', '/v1/models/', {}, 404, 'Not Found'),
        ('GET', '/healthz/', {}, 404, 'Not Found'),
        ('POST', '/tokenize', {'json': {'prompt': 'a', 'model': 0}}, 400, 'model must be a text'),
        ('POST', '/tokenize', {'json': {'k' * 900: 1}}, 400, 'k' * 80 + ' is unknown'),
        ('POST', '/detokenize', {'json': {'tokens': ['a']}}, 400, 'a list of token ids'),
        ('POST', '/detokenize', {'json': {'tokens': [10**6]}}, 400, 'token ids are 0 to'),
        (
            *('POST', '/tokenize', {'json': {'prompt': 'a', 'add_special_tokens': True}}),
            *(400, 'add_special_tokens=true is not supported'),
        ),
        ('POST', '/tokenize', {'json': {'text': 'a'}}, 400, 'text is unknown'),
        ('POST', '/tokenize', {'json': {}}, 400, 'prompt must be a text'),
    ],
)
def test_other_refusals(address, method, path, how, status, message):
    answer = httpx.request(method, address + path, **how, timeout=60)
    assert answer.status_code == status
    assert message in answer.json()['error']['message']
    assert answer.headers['x-content-type-options'] == 'nosniff'
    assert 'access-control-allow-origin' not in answer.headers


def test_tokenize(address, runs):
    found = httpx.post(f'{address}/tokenize', json={'prompt': PROMPT}).json()
    assert found['tokens'] == runs[0].task.tokenizer.encode(PROMPT).tolist()
    assert found['token_strs'] == list(PROMPT)
    back = httpx.post(f'{address}/detokenize', json={'tokens': found['tokens']}).json()
    assert back == {'prompt': PROMPT}
    assert httpx.get(f'{address}/tokenizer_info').json()['eos_token'] is None
    assert (found['count'], found['max_model_len']) == (5, runs[0].config.model.block_size)


def bare(address, body: bytes, *, length: int | None = None) -> socket.socket:
    """A connection that has sent a request, and has read nothing."""
    host, port = re.fullmatch(r'http://(.*):(\d+)', address).groups()
    sock = socket.create_connection((host, int(port)))
    head = f'POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n'
    sock.sendall(f'{head}Content-Length: {length or len(body)}\r\n\r\n'.encode() + body)
    return sock


@pytest.mark.parametrize('stream', [True, False])
def test_a_client_that_leaves_frees_its_slots(address, metrics, stream):
    body = {'prompt': PROMPT, 'max_tokens': 16_000, 'n': 3, 'stream': stream}
    left = [bare(address, json.dumps(body).encode()) for _ in range(4)]
    assert soon(lambda: metrics()['gptjax_slots_busy'] == 4)
    assert metrics()['gptjax_live'] == 12
    for sock in left:
        sock.close()
    assert soon(lambda: metrics()['gptjax_live'] == metrics()['gptjax_slots_busy'] == 0)
    assert metrics()['gptjax_queue'] == 0


def test_a_body_that_never_comes_takes_no_slot(address, metrics):
    sock = bare(address, b'{"prompt": "To', length=100)
    assert len(ask(address, max_tokens=3)) == 1
    assert metrics()['gptjax_live'] == 0
    sock.close()


def test_a_full_queue_is_a_429(address, metrics):
    body = json.dumps({'prompt': PROMPT, 'max_tokens': 1000, 'n': 128}).encode()
    waiting = [bare(address, body) for _ in range(4)]
    assert soon(lambda: metrics()['gptjax_live'] == 512)
    answer = httpx.post(f'{address}/v1/completions', json={'prompt': PROMPT}, timeout=60)
    assert (answer.status_code, answer.headers['retry-after']) == (429, '1')
    assert 'texts are being generated' in answer.json()['error']['message']
    assert httpx.get(f'{address}/healthz').json() == {'status': 'ok'}
    for sock in waiting:
        sock.close()
    assert soon(lambda: metrics()['gptjax_live'] == 0)


def test_a_model_that_fails_is_a_500_and_the_others_go_on(runs, monkeypatch, capfd):
    with serving(runs[:1]) as (address, _):
        program = engine.decode_chunk

        def fail(*args, **kwargs):
            monkeypatch.setattr(engine, 'decode_chunk', program)
            program(*args, **kwargs)  # What it was given is gone.
            raise RuntimeError('a failure')

        (before,) = ask(address, max_tokens=3, seed=1)
        monkeypatch.setattr(engine, 'decode_chunk', fail)
        answer = httpx.post(f'{address}/v1/completions', json={'prompt': PROMPT}, timeout=60)
        assert answer.status_code == 500
        assert 'the model failed' in answer.json()['error']['message']
        assert ask(address, max_tokens=3, seed=1) == [before]
    assert 'RuntimeError: a failure' in capfd.readouterr().err


def test_a_token_is_needed_where_there_is_one(runs):
    with serving(runs[2:], token='a secret of some length', origin='http://friend.example') as (
        address,
        _,
    ):
        assert httpx.get(f'{address}/healthz').status_code == 200
        wrong = (
            'Bearer wrong',
            'Bearer',
            '',
            'a secret of some length',
            'Basic a secret of some length',
        )
        for headers in ({}, *({'authorization': value} for value in wrong)):
            answer = httpx.get(f'{address}/v1/models', headers=headers)
            assert answer.status_code == 401
            assert answer.headers['www-authenticate'] == 'Bearer'
            assert 'the token is missing or wrong' in answer.json()['error']['message']
        assert httpx.get(f'{address}/').status_code == 200  # The page, which then asks with one.
        headers = {'authorization': 'Bearer a secret of some length'}
        assert httpx.get(f'{address}/v1/models', headers=headers).status_code == 200
        headers |= {'origin': 'http://friend.example'}
        answer = httpx.get(f'{address}/v1/models', headers=headers)
        assert answer.headers['access-control-allow-origin'] == 'http://friend.example'
        assert httpx.options(f'{address}/v1/models', headers=headers).status_code == 204


def test_a_better_checkpoint_is_taken_and_texts_go_on_with_the_old(home, tmp_path, monkeypatch):
    monkeypatch.setattr('gptjax.serve.app.REFRESH_S', 0.1)
    folder = tmp_path / 'char'
    shutil.copytree(home / 'char', folder)
    run = Run.open(folder)
    how = {'max_tokens': 400, 'seed': 1}
    with serving([run]) as (address, _):
        (old,) = ask(address, **how)
        body = {'prompt': PROMPT, 'stream': True, **how}
        with httpx.stream('POST', f'{address}/v1/completions', json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            begun = [next(lines)]
            with contextlib.closing(run_files.checkpoints(folder)) as checkpoints:
                _, state = checkpoints.restore(abstract_state(run.task, run.layout), [run.step])
                better = jax.tree.map(lambda x: 0.5 * x, state.params)
                checkpoints.save(state.replace(params=better, step=state.step + 1), 0.01)
            assert soon(lambda: ask(address, **how) != [old], 20)
            begun += list(lines)
        chunks = [json.loads(line[6:]) for line in begun if line.startswith('data: {')]
        assert ''.join(chunk['choices'][0]['text'] for chunk in chunks) == old['text']
        names = [model['id'] for model in httpx.get(f'{address}/v1/models').json()['data']]
        assert names == ['char', f'char@{run.step}', f'char@{run.step + 1}']
        again = ask(address, **how, model=f'char@{run.step}')
        assert again == [old]
