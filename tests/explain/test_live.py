"""The model in the page of --mode=explain: what JavaScript computes is what JAX does."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from gptjax.config import Config, DataConfig, ModelConfig
from gptjax.explain import live
from gptjax.explain import page as explain_page
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.text.bpe import BpeTokenizer
from gptjax.text.characters import ByteTokenizer, CharTokenizer
from gptjax.text.clean import clean
from gptjax.text.token_files import Corpus
from gptjax.text.words import WordTokenizer
from gptjax.training.steps import run_key

pytestmark = pytest.mark.browser

TEXT = 'to be, or not to be: that is'
BASE = {'n_layer': 2, 'n_head': 2, 'n_embd': 16, 'block_size': 40, 'residual_init': 'plain'}
# Between them, every value of every knob that the forward pass depends on.
MODELS = {
    'default': {'ngram': 3, 'ngram_rows': 50, 'head_bias': True},
    'gpt2': {
        'position': 'learned',
        'norm': 'layer',
        'bias': True,
        'activation': 'gelu',
        'qk_norm': False,
        'tied_head': True,
        'vocab_multiple': 32,
    },
    'after': {
        'norm_place': 'after',
        'position': 'sinusoidal',
        'activation': 'relu',
        'scale_embedding': True,
        'norm': 'layer',
        'bias': True,
    },
    'branch': {
        'norm_place': 'branch',
        'position': 'none',
        'activation': 'gelu_exact',
        'norm': 'layer',
        'bias': True,
        'n_hidden': 24,
    },
}


def task_of(tokenizer, data=None, **model):
    config = Config(model=ModelConfig(**{**BASE, **model}), data=data or DataConfig())
    return LanguageModel(config, Corpus(tokenizer, None, None, 'none'))


def parameters(task):
    """Random ones, as large as trained ones, that half precision can hold."""
    params = task.init_state(run_key(0)).params
    key = jax.random.key(1)
    return jax.tree.map(
        lambda x: (x + 0.2 * jax.random.normal(key, x.shape)).astype('float16').astype('float32'),
        params,
    )


@functools.cache
def characters():
    return CharTokenizer(''.join(sorted({*TEXT, '!'})))


@pytest.fixture
def page(quiet_chromium, tmp_path):
    """Opens the page of an explanation and loads the model in it."""

    def opened(explained):
        path = tmp_path / 'page.html'
        path.write_text(explained.to_html())
        quiet_chromium.get(path.as_uri())
        quiet_chromium.execute_script('loadWeights()')
        return quiet_chromium

    return opened


@pytest.mark.parametrize('name', MODELS)
def test_logits_parts_and_attention_are_those_of_the_model(page, name):
    task = task_of(characters(), **MODELS[name])
    params = parameters(task)
    explained = task.explain(params, (TEXT[:9], TEXT[9:]), task.config.sample, 'page')
    driver = page(explained)
    ids = task.tokenizer.encode(TEXT)
    found = driver.execute_script(
        """
        const { logits, parts, streams, heads } = forward(arguments[0], { parts: true });
        const plain = (x) => x.map((row) => [...row]);
        return [plain(logits), Object.values(parts).map(plain), streams.map(plain),
          heads.map((layer) => layer.map((head) => plain(head.weights)))];
        """,
        ids.tolist(),
    )
    logits_TV, _ = task.model.apply(params, ids[None])
    logits_TV = np.asarray(logits_TV[0, :, : task.tokenizer.vocab_size])
    np.testing.assert_allclose(found[0], logits_TV, atol=1e-3 * np.abs(logits_TV).max())
    # Parts sum to what the output head reads.
    head = params['params'][task.model.head_name]
    matrix_VD = head['embedding'] if task.config.model.tied_head else head['kernel'].T
    read_TV = np.sum(found[1], 0) @ np.asarray(matrix_VD)[: task.tokenizer.vocab_size].T
    read_TV += np.asarray(head['bias']) if 'bias' in head else 0
    np.testing.assert_allclose(read_TV, logits_TV, atol=1e-3 * np.abs(logits_TV).max())
    for layer, kind in zip(found[3], explained.numbers['attention'][0].layers, strict=True):
        for head, weights_TS in zip(layer, kind.weights_NTS, strict=True):
            for t, row in enumerate(head):
                np.testing.assert_allclose(row, weights_TS[t, : t + 1], atol=1e-4)


def test_every_view_is_computed_anew_for_another_text(page):
    """They are those that Python gives of the same text."""
    from selenium.webdriver.common.by import By

    task = task_of(characters(), **MODELS['default'])
    params = parameters(task)
    rules = {'top_k': 9, 'top_p': 0.9, 'min_p': 0.01, 'repetition_penalty': 1.2}
    sampling = dataclasses.replace(task.config.sample, temperature=0.8, **rules)
    driver = page(task.explain(params, ('to be', ' or'), sampling, 'page'))
    driver.find_element(By.CSS_SELECTOR, '#own summary').click()
    driver.find_element(By.ID, 'own-text').send_keys(TEXT)
    driver.find_element(By.ID, 'own-button').click()
    words = driver.find_element(By.ID, 'own-words').text
    assert words.startswith(f'{len(TEXT)} tokens; their loss is')
    assert 'by more than' in driver.find_element(By.ID, 'own-proof').text
    assert len(driver.find_elements(By.CSS_SELECTOR, '#text button')) == len(TEXT)
    numbers = task.explain(params, (TEXT[:1], TEXT[1:]), sampling, 'page').numbers
    found = driver.execute_script('return explainOwn(data.tokens, 1)')
    assert found['tokens'] == numbers['tokens'].tolist()
    loss = float(re.search(r'loss is ([\d.]+)', words)[1])
    assert loss == pytest.approx(numbers['loss'], abs=1e-3)
    for ours, theirs in zip(numbers['predictions'], found['predictions'], strict=True):
        assert list(ours.ids) == theirs['ids'] and list(ours.removed_by) == theirs['removed_by']
        assert ours.entropy == pytest.approx(theirs['entropy'], abs=1e-3)
        np.testing.assert_allclose(ours.probabilities, theirs['probabilities'], atol=1e-4)
        np.testing.assert_allclose(ours.sampled, theirs['sampled'], atol=1e-3)
        assert ours.removed == pytest.approx(theirs['removed'], abs=1e-3)
    for ours, theirs in zip(numbers['outcomes'], found['outcomes'], strict=True):
        assert (ours.id, ours.rank) == (theirs['id'], theirs['rank'])
    for ours, theirs in zip(numbers['lens'], found['lens'], strict=True):
        np.testing.assert_allclose(ours.probs_TK, theirs['probs_TK'], atol=1e-4)
        np.testing.assert_allclose(ours.divergence_T, theirs['divergence_T'], atol=1e-3)
    parts = driver.execute_script(
        'const { names, ids, unpacked } = data.parts;'
        'return [names, ids, names.map((_, p) => ids.flat().map((_, j) => unpacked(p, j)))]'
    )
    order = [parts[0].index(name) for name in numbers['parts']['names']]
    assert parts[1] == numbers['parts']['ids'].tolist()
    ours = numbers['parts']['logits'].reshape(len(order), -1)
    np.testing.assert_allclose(ours, np.array(parts[2])[order], atol=2e-3)
    np.testing.assert_allclose(
        numbers['heads']['loss_increase'], found['heads']['loss_increase'], atol=1e-4
    )
    near = {int(token): [other for other, _ in n] for token, n in found['neighbours'].items()}
    assert near == {t: [other for other, _ in n] for t, n in numbers['neighbours'].items()}


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('to be X', 'The vocabulary lacks “X”.'),
        ('t', 'Two tokens are the least'),
        ('to be ' * 9, 'The text has 54 tokens, and the model takes 40 at most.'),
    ],
)
def test_a_text_that_cannot_be_explained_leaves_the_page_as_it_was(page, text, words):
    task = task_of(characters())
    driver = page(task.explain(parameters(task), ('to', ' be'), task.config.sample, 'page'))
    driver.execute_script('$("own-text").value = arguments[0]; onOwn()', text)
    assert words in driver.execute_script('return $("own-words").textContent')
    assert driver.execute_script('return data.tokens.length') == 5


def test_a_text_that_would_take_long_is_refused(page):
    task = task_of(characters())
    driver = page(task.explain(parameters(task), ('to', ' be'), task.config.sample, 'page'))
    driver.execute_script('live.config.n_embd = 1e5; $("own-text").value = "to be"; onOwn()')
    words = driver.execute_script('return $("own-words").textContent')
    assert words.endswith('would take long in a browser; try a shorter one.')
    assert driver.execute_script('return $("own-proof").textContent') == ''


def test_a_page_without_room_for_pictures_shows_everything_else(page, monkeypatch):
    monkeypatch.setattr(explain_page, 'MOST_BYTES', 0)
    task = task_of(characters())
    driver = page(task.explain(parameters(task), ('to', ' be'), task.config.sample, 'page'))
    assert 'it has pictures of the layers (none) of 2' in driver.page_source
    assert driver.execute_script('return $("lens-table").innerText').startswith('Columns')
    driver.execute_script('$("own-text").value = "to be"; onOwn()')
    assert driver.execute_script('return data.tokens.length') == 5


@pytest.mark.parametrize('kind', ['byte', 'bpe', 'persian'])
def test_texts_are_split_into_the_same_tokens(page, kind):
    texts = [
        "It's  naïve,\n\n 12 times ½ — zwölf!",
        'كتاب\u200cها يك',
        ' a  b\t\u00a0c 🙂',
        "they'll I'M",
    ]
    data = DataConfig(normalize='persian', lowercase=True) if kind == 'persian' else DataConfig()
    cleaned = [clean(text, data) for text in texts]
    tokenizer = {
        'byte': ByteTokenizer(),
        'bpe': BpeTokenizer.learn([' '.join(texts) * 9], DataConfig(vocab_size=330), False),
        'persian': CharTokenizer(''.join(sorted(set(''.join(cleaned))))),
    }[kind]
    task = task_of(tokenizer, data)
    driver = page(task.explain(parameters(task), ('12', ' a'), task.config.sample, 'page'))
    for text, clean_text in zip(texts, cleaned, strict=True):
        found = driver.execute_script('return encode(arguments[0]).ids', text)
        assert found == tokenizer.encode(clean_text).tolist(), text


def test_a_model_that_cannot_be_in_the_page_is_not_and_the_page_says_why(monkeypatch):
    tokenizers = {
        'bigrams': (task_of(characters(), kind='bigram'), ('to', ' be')),
        'kind word': (task_of(WordTokenizer(('to', 'be'), (1, 1), (0, 0))), ('to', 'be')),
    }
    for words, (task, texts) in tokenizers.items():
        explained = task.explain(parameters(task), texts, task.config.sample, 'page')
        assert explained.live is None and words in explained.to_html()
    monkeypatch.setattr(live, 'MOST_PARAMS', 100)
    task = task_of(characters())
    text = task.explain(parameters(task), ('to', ' be'), task.config.sample, 'page').to_html()
    assert 'parameters, and pages have models of up to 100' in text


def test_the_slider_goes_through_the_checkpoints(page):
    task = task_of(characters())
    checkpoints = [(step, task.init_state(run_key(step)).params) for step in (10, 20)]
    explained = task.explain(checkpoints[1][1], ('to', ' be'), task.config.sample, 'page')
    driver = page(task.across(explained, checkpoints))
    at_end = driver.execute_script('return $("across-words").textContent')
    assert at_end.startswith('Step 20: the loss of this text is')
    driver.execute_script(
        '$("across-step").value = 0; $("across-step").dispatchEvent(new Event("input"))'
    )
    words = driver.execute_script('return $("across-words").textContent')
    assert words.startswith('Step 10') and words != at_end
    assert len(driver.execute_script('return [...$("across-text").children]')) == 5
    driver.execute_script(
        '$("own-text").value = "to be"; onOwn()'
    )  # Other checkpoints are not here.
    assert driver.execute_script('return $("across").hidden')
