"""Sentences: what is one, what is left out, what is held out, and their rows."""

import builtins
import dataclasses

import numpy as np
import pytest

from gptjax.config import Config, DataConfig, GanConfig, ModelConfig
from gptjax.errors import UserError
from gptjax.tasks.gan import likeness, sentences
from gptjax.text import corpora
from gptjax.text.words import END, PAD, START
from tests.conftest import replace

LINES = [f'the {a} {b} runs' for a in ('old', 'small', 'red', 'big') for b in ('cat', 'dog', 'ox')]


@pytest.fixture
def config(tmp_path) -> Config:
    path = tmp_path / 'lines.txt'
    path.write_text('\n'.join(LINES) + '\n\nthe cat, END!\nThe <END> runs and runs on.\n')
    data = DataConfig(
        path=str(path),
        tokenizer='word',
        cache_dir=str(tmp_path),
        split='documents',
        lowercase=True,
        val_fraction=0.2,
    )
    return Config(
        task='gan', model=ModelConfig(block_size=6), data=data, gan=GanConfig(max_words=4)
    )


def prepare(config: Config) -> sentences.Sentences:
    return sentences.prepare(corpora.source(config.data), config, print)


def test_rows_begin_with_start_and_end_with_end(config):
    found = prepare(config)
    rows = np.concatenate([found.train_NT, found.val_NT])
    assert rows.shape[1] == 6
    assert (rows[:, 0] == START).all()
    assert ((rows == END).sum(1) == 1).all()
    for row in rows:
        assert (row[list(row).index(END) + 1 :] == PAD).all()
    texts = {found.tokenizer.decode(ids) for ids in sentences.word_lists(rows)}
    # The word 'end' is a word; six words are too many; punctuation is gone.
    assert texts <= {*LINES, 'the cat end'}
    assert len(texts) > 9


def test_a_text_that_spells_end_is_not_the_id(config):
    found = prepare(replace(config, gan={'max_words': 6}, model={'block_size': 8}))
    for ids in sentences.word_lists(np.concatenate([found.train_NT, found.val_NT])):
        assert END not in ids


def test_splits_share_no_sentence(config):
    found = prepare(replace(config, data={'val_fraction': 0.3}))
    learnt, held_out = (set(sentences.word_lists(r)) for r in (found.train_NT, found.val_NT))
    assert held_out
    assert not learnt & held_out
    again = prepare(replace(config, data={'val_fraction': 0.3}, train={'seed': 5}))
    assert (again.val_NT == found.val_NT).all()


def test_a_validation_file_is_held_out(config, tmp_path):
    path = tmp_path / 'val.txt'
    path.write_text('the red cat runs\nthe big ox runs\n')
    found = prepare(replace(config, data={'val_path': str(path)}))
    assert len(found.val_NT) == 2
    assert 'the red cat runs' not in {
        found.tokenizer.decode(ids) for ids in sentences.word_lists(found.train_NT)
    }


@pytest.mark.parametrize('unknown', ['drop', 'keep'])
def test_sentences_with_rare_words_are_dropped_or_kept(config, unknown, tmp_path):
    path = tmp_path / 'val.txt'
    path.write_text('the cat runs\nthe dog runs\n')
    data = {'vocab_size': 10, 'val_path': str(path)}
    found = prepare(replace(config, data=data, gan={'unknown': unknown}))
    assert found.tokenizer.vocab_size == 10
    assert (3 in found.train_NT) == (unknown == 'keep')


def test_the_library_finds_sentences_and_is_asked_once(config, tmp_path, monkeypatch):
    text = tmp_path / 'text.txt'
    text.write_text(
        'Mr. Smith is old. He runs!\nDoes he? The cat\nsits. ' * 2 + 'It is 5 p.m. now.'
    )
    val = tmp_path / 'val.txt'
    val.write_text('He is now old. It runs.')
    gan = {'splitter': 'library', 'max_words': 8}
    config = replace(
        config,
        data={'path': str(text), 'val_path': str(val)},
        gan=gan,
        model={'block_size': 10},
    )
    found = prepare(config)
    texts = [
        found.tokenizer.decode(ids)
        for ids in sentences.word_lists(np.concatenate([found.train_NT, found.val_NT]))
    ]
    assert 'mr smith is old' in texts
    assert 'the cat sits' in texts
    monkeypatch.setattr(sentences, '_pysbd', lambda: pytest.fail('asked again'))
    prepare(config)


def test_a_batch_is_a_function_of_seed_step_and_process():
    rows_NT = np.arange(60, dtype=np.uint16).reshape(10, 6)
    args = {'seed': 1, 'step': 2, 'batch_size': 4, 'turns': 3}
    whole = sentences.random_rows(rows_NT, **args)
    assert whole['ids'].shape == (4, 3, 6)
    parts = [sentences.random_rows(rows_NT, **args, process=p, processes=2) for p in (0, 1)]
    for p, part in enumerate(parts):
        assert (part['ids'] == whole['ids'][2 * p : 2 * p + 2]).all()
        assert (part['row'] == whole['row'][2 * p : 2 * p + 2]).all()
    assert (sentences.random_rows(rows_NT, **(args | {'step': 3}))['ids'] != whole['ids']).any()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'data': {'tokenizer': 'char'}}, 'data.tokenizer=char has no words'),
        ({'model': {'block_size': 5}}, 'try model.block_size=6'),
        ({'gan': {'min_words': 4, 'max_words': 4}, 'data': {'vocab_size': 5}}, 'has 0 training'),
    ],
)
def test_mistakes_name_the_remedy(config, change, message):
    with pytest.raises(UserError, match=message):
        prepare(replace(config, **change))


@pytest.mark.parametrize('module', ['pysbd', 'sacrebleu'])
def test_a_missing_library_says_how_to_get_it(config, module, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split('.')[0] == module:
            raise ImportError
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(UserError, match=f"{module}, which is not installed; pip install -e '.*gan"):
        if module == 'pysbd':
            prepare(dataclasses.replace(config, gan=GanConfig(splitter='library', max_words=4)))
        else:
            likeness.self_bleu([(1, 2), (3, 4)])


def test_distances_are_those_of_jensen_and_shannon():
    assert likeness.distance('aab', 'aab') == 0
    assert likeness.distance('aa', 'bb') == 1
    # Half of the mass is shared: 1/2 (log 4/3 + 1/2 log 2/3 ...), by hand.
    assert likeness.distance('ab', 'aa') == pytest.approx(0.311278124**0.5, rel=1e-6)
    assert likeness.distance('', 'a') == 1


def test_figures_of_known_sentences():
    real = [(4, 5, 6), (4, 5, 7)]
    figures = likeness.figures([(4, 5, 6), (4, 5, 6), (6, 5, 4)], real, real)
    assert figures['bigram_share'] == pytest.approx(4 / 6)
    assert figures['trigram_share'] == pytest.approx(2 / 3)
    assert figures['distinct_2'] == pytest.approx(4 / 6)
    assert figures['duplicates'] == pytest.approx(1 / 3)
    assert figures['mean_words'] == 3


def test_self_bleu_tells_collapse_from_variety():
    same = [(4, 5, 6, 7, 8)] * 5
    different = [tuple(range(10 * i, 10 * i + 5)) for i in range(1, 6)]
    assert likeness.self_bleu(same) == pytest.approx(1)
    assert likeness.self_bleu(different) < 0.1


def test_the_baseline_has_the_frequencies():
    learnt = [(4, 4, 5)] * 10
    drawn = likeness.by_frequency(learnt, 500, np.random.default_rng(0))
    words = [word for sentence in drawn for word in sentence]
    assert {len(sentence) for sentence in drawn} == {3}
    assert words.count(4) / len(words) == pytest.approx(2 / 3, abs=0.05)
