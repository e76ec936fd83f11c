"""The explanation of a sentence from noise: its words, attention and the critic's scores."""

import json

import numpy as np
import pytest

import gptjax
from gptjax.errors import UserError
from gptjax.text.words import END, START
from tests.conftest import unpack_golden


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return gptjax.load(unpack_golden(tmp_path_factory.mktemp('run'), 'gan') / 'gan')


@pytest.fixture(scope='module')
def explained(run):
    return run.explain()


def test_the_sentence_is_the_one_that_sampling_writes(run, explained):
    ids = explained.numbers['tokens'].tolist()
    assert ids[0] == START
    words = [token for token in ids[1:] if token != END]
    assert run.task.tokenizer.decode(words) == run.generate('', num_samples=1)


def test_each_word_is_drawn_as_the_page_says(run, explained):
    numbers = explained.numbers
    assert run.config.gan.output.startswith('gumbel')
    assert numbers['rules']['temperature'] == run.config.sample.temperature
    likeliest = run.explain(temperature=0.0).numbers  # Without noise, the likeliest word each time.
    assert all(outcome.rank == 1 for outcome in likeliest['outcomes'])
    assert numbers['proofs']['predictions'] <= 1e-12
    for kind in numbers['attention'] or ():
        assert kind.error <= 1e-6


def test_the_critic_scores_the_sentence_and_it_without_each_word(run, explained):
    players, params = run.task.adversaries.players, run.params['critic']
    critic, tokens = explained.numbers['critic'], explained.numbers['tokens']
    ids = np.zeros((1, run.config.model.block_size), np.int32)
    ids[0, : len(tokens)] = tokens
    e_BSD = players.embedded(params, ids)
    assert critic['score'] == pytest.approx(float(players.score(params, e_BSD)[0]), rel=1e-4)
    without = float(players.score(params, e_BSD.at[:, 1].set(0))[0])
    assert critic['without'][1] == pytest.approx(without, rel=1e-4, abs=1e-5)
    assert np.isfinite(critic['real'])
    json.loads(explained.to_json())


def test_a_given_sentence_is_taken_as_it_is(run):
    first, second = run.task.tokenizer.words[:2]
    found = run.explain(first, second).numbers
    words = [token for token in found['tokens'].tolist() if token not in (START, END)]
    assert words == run.task.tokenizer.encode(f'{first} {second}').tolist()
    assert found['n_prompt'] == 3
    with pytest.raises(UserError, match='is not in the vocabulary'):
        run.explain('qwertyuiop')
