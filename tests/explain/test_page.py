"""The page of --mode=explain: complete in itself, bounded, and deaf to what its tokens say."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import re

import numpy as np
import pytest

import gptjax
from gptjax import cli
from gptjax.config import Config, ModelConfig
from gptjax.errors import UserError
from gptjax.explain import page
from gptjax.modes import explain
from gptjax.modes.request import Request
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.text.characters import CharTokenizer
from gptjax.text.token_files import Corpus
from gptjax.training.steps import run_key
from tests.conftest import one_line, replace, run_main, unpack_golden


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    return unpack_golden(tmp_path_factory.mktemp('golden'), 'char', 'translation', 'gan')


@pytest.fixture(scope='module')
def explained(home):
    return gptjax.load(home / 'char').explain('To be', seed=3)


class Page(html.parser.HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def data_of(text):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(data)


def test_nothing_is_fetched_and_only_its_own_script_runs(explained):
    text = explained.to_html()
    elements = Page(text).found
    assert not [
        a for _, attributes in elements for a in attributes if a in ('src', 'href', 'style')
    ]
    assert not re.search(r'https?://', text)
    (policy,) = [a['content'] for tag, a in elements if a.get('http-equiv')]
    assert policy.startswith("default-src 'none'; ")
    for kind, tag in (('style', 'style'), ('script', 'script')):
        (content,) = re.findall(rf'<{tag}>(.*?)</{tag}>', text, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not [a for _, attributes in elements for a in attributes if a.startswith('on')]


def test_the_numbers_of_the_page_are_those_of_json(explained):
    numbers, data = json.loads(explained.to_json()), data_of(explained.to_html())
    assert data['tokens'] == numbers['tokens'] and data['names'] == numbers['names']
    assert data['predictions'] == numbers['predictions']
    weights = np.array([layer['weights_NTS'] for layer in numbers['attention'][0]['layers']])
    for layer, packed in zip(weights, data['attention'][0]['layers'], strict=True):
        in_page = np.zeros_like(layer)
        rows, columns = np.tril_indices(layer.shape[-1])
        triangles = np.frombuffer(base64.b64decode(packed['weights']['data']), np.uint8)
        in_page[:, rows, columns] = triangles.reshape(len(layer), -1) / 255
        assert np.abs(in_page - layer).max() <= 0.5 / 255 + 1e-6
        queries = np.frombuffer(base64.b64decode(packed['queries']['data']), '<f2')
        assert packed['queries']['shape'][0] == len(layer) and np.isfinite(queries).all()


def test_every_number_has_its_proof(explained):
    proofs = explained.numbers['proofs']
    assert proofs['lens'] == 0
    assert proofs['attention'] <= 1e-6 and proofs['predictions'] <= 1e-12
    assert proofs['parts'] <= 1e-4


def test_the_continuation_is_what_the_model_samples(home):
    run = gptjax.load(home / 'char')
    found = run.explain('To be', max_new_tokens=7, seed=5, temperature=0.7).numbers
    text = run.generate('To be', max_new_tokens=7, seed=5, temperature=0.7)
    assert run.task.tokenizer.decode(found['tokens']) == 'To be' + text
    assert found['n_prompt'] == 5 and found['rules']['temperature'] == 0.7
    given = run.explain('To be', ', or').numbers
    assert run.task.tokenizer.decode(given['tokens']) == 'To be, or'
    score = run.score('To be, or')
    np.testing.assert_allclose(
        [np.log(outcome.probability) for outcome in given['outcomes']],
        score.log_probs,
        rtol=1e-4,
    )


def hostile_task():
    """A model whose vocabulary is markup; its parameters are random."""
    characters = ''.join(sorted(set('</script><img src=x onerror=alert(1)>"\'&\u202e\u2028\n')))
    config = Config(model=ModelConfig(block_size=40, n_layer=1, n_head=1, n_embd=8))
    return LanguageModel(config, Corpus(CharTokenizer(characters), None, None, 'none'))


def test_tokens_cannot_end_the_script_or_become_elements():
    task = hostile_task()
    texts = ('</script>', '<img src=x onerror=alert(1)>')
    params = task.init_state(run_key(0)).params
    found = task.explain(params, texts, task.config.sample, '</title><b>"\'&')
    text = found.to_html()
    tags = [tag for tag, _ in Page(text).found]
    assert tags.count('script') == 2 and 'img' not in tags and 'b' not in tags
    assert ''.join(data_of(text)['names'][str(i)] for i in found.numbers['tokens'][:9]) == texts[0]


def test_the_page_stays_within_its_size(explained, monkeypatch):
    """What does not fit is left out by layers, and the page says which are there."""
    explained = dataclasses.replace(explained, live=None)
    whole = explained.to_html()
    assert len(whole.encode()) < page.MOST_BYTES and 'To keep the page small' not in whole
    assert all('queries' in layer for layer in data_of(whole)['attention'][0]['layers'])
    frame = len(whole) - len(page._for_script(page._packed(explained.numbers)[0]))
    assert frame <= page.FRAME_BYTES
    # The last layer stays as long as one fits; queries, keys and values go first.
    full = len(whole) - frame + page.FRAME_BYTES
    for room, left in ((full - 1000, 'LW'), (full - 3000, 'LL'), (full - 4700, ' L'), (0, '  ')):
        monkeypatch.setattr(page, 'MOST_BYTES', room)
        text = explained.to_html()
        kinds = data_of(text)['attention']
        layers = kinds[0]['layers'] if kinds else [None, None]  # Then the section is left out.
        kept = [' ' if x is None else 'W' if 'queries' in x else 'L' for x in layers]
        assert ''.join(kept) == left, room
        assert 'To keep the page small, it has pictures of the layers' in text


def test_large_models_keep_some_layers():
    assert page._spread(12, 100) == list(range(12))
    assert page._spread(12, 3) == [3, 7, 11]
    assert page._spread(12, 0) == page._spread(12, -4) == []


@pytest.mark.parametrize(
    ('prompts', 'message'),
    [
        (('To be' * 100,), r'the text to explain has 50\d tokens, and it takes 2 to model\.block'),
        (('a', 'b', 'c'), 'takes one --prompt, or a prompt and its continuation, and got 3'),
        (('Ж',), 'is not in the vocabulary'),
    ],
)
def test_bad_texts_are_refused_in_one_line(home, prompts, message):
    run = gptjax.load(home / 'char')
    request = Request(config=run.config, workdir=home / 'char', prompts=prompts)
    with pytest.raises(UserError, match=message):
        explain.run(request)
    assert not (home / 'char' / 'explain.html').exists()


def test_from_the_command_line(home):
    flags = ['--config=configs/char.py:small', f'--workdir={home / "char"}', '--mode=explain']
    done = run_main(*flags, '--prompt=To be', '--config.sample.max_new_tokens=5')
    assert done.returncode == 0, done.stderr
    written = home / 'char' / 'explain.html'
    assert f'Wrote {written}' in done.stderr
    assert data_of(written.read_text())['n_prompt'] == 5
    other = home / 'notes.html'
    other.write_text('mine')
    assert 'no page of ours' in one_line(run_main(*flags, f'--html={other}'), 1)
    assert 'explain' in cli.MODES


@pytest.mark.parametrize('texts', [('RO', 'ME', 'O:'), (b'ROMEO',), (None,)])
def test_what_is_no_prompt_with_a_continuation_is_refused(home, texts):
    with pytest.raises(UserError, match=r'not of .*; give one or two strings'):
        gptjax.load(home / 'char').explain(*texts)


def test_the_same_text_at_several_checkpoints(tiny, tmp_path):
    """The run's own checkpoint is among them, and says there what it says elsewhere."""
    run = gptjax.train(replace(tiny, train={'steps': 9, 'keep': 3}), tmp_path / 'run')
    explained = run.explain('ROMEO', 'dias', live=False)
    moments = {moment.step: moment for moment in explained.numbers['across']}
    assert set(moments) == {3, 6, 9} and explained.live is None
    own = moments[run.step]
    assert own.loss == pytest.approx(explained.numbers['loss'], rel=1e-5)
    outcomes = explained.numbers['outcomes']
    assert own.rank_T.tolist() == [outcome.rank for outcome in outcomes]
    np.testing.assert_allclose(own.probability_T, [o.probability for o in outcomes], rtol=1e-4)
    assert moments[3].loss != own.loss
    assert set(own.ids_TK.flat) <= explained.numbers['names'].keys()


def test_a_page_of_a_small_model_has_the_model(home):
    explained = gptjax.load(home / 'char').explain('To be', max_new_tokens=3)
    weights = data_of(explained.to_html())['live']['weights']
    size = sum(len(packed['data']) for packed in weights.values())
    assert explained.live.count > 1000 and size == pytest.approx(
        explained.live.count * 8 / 3, rel=0.01
    )
    assert data_of(dataclasses.replace(explained, live=None).to_html())['live'] is None


def test_a_page_of_twelve_times_twelve_heads_stays_small():
    """GPT-2's heads at 128 tokens; the width of the model is less, so that the test is quick."""
    tokenizer = CharTokenizer(''.join(map(chr, range(33, 133))))
    size = {'n_layer': 12, 'n_head': 12, 'n_embd': 96, 'block_size': 128}
    task = LanguageModel(Config(model=ModelConfig(**size)), Corpus(tokenizer, None, None, 'none'))
    text = tokenizer.decode(np.random.default_rng(0).integers(100, size=128))
    params = task.init_state(run_key(0)).params
    explained = task.explain(params, (text[:64], text[64:]), task.config.sample, 'page')
    explained = dataclasses.replace(explained, live=None)
    assert len(explained.to_html().encode()) <= page.MOST_BYTES
