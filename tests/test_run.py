"""A run as an object: what Python users see of it."""

import contextlib
import dataclasses
import logging
import math
import subprocess
import sys
import tarfile

import jax
import numpy as np
import pytest

import gptjax
from gptjax.config import SampleConfig
from gptjax.errors import UserError
from tests.test_golden import EXPECTED, GOLDEN


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    for name in ('char', 'translation', 'gpt2'):
        with tarfile.open(GOLDEN / f'{name}.tar.xz') as archive:
            archive.extractall(folder, filter='data')
    return folder


@pytest.fixture(scope='module')
def run(runs):
    return gptjax.load(runs / 'char')


def test_a_run_knows_what_it_is(run, runs):
    assert (run.step, run.config.name, run.workdir) == (12, 'char:small', runs / 'char')
    assert [row['step'] for row in run.metrics][-1] == 12
    assert run.plot().axes[0].get_title() == f'char:small in {runs / "char"}'


def test_generate_gives_a_text_or_several(run):
    one = run.generate('ROMEO:', max_new_tokens=20, seed=3)
    assert isinstance(one, str)
    assert len(one) == 20
    assert run.generate(['ROMEO:', 'And'], max_new_tokens=20, seed=3)[0] == one
    assert len(run.generate('ROMEO:', max_new_tokens=5, num_samples=3)) == 3
    pieces = list(run.stream(['ROMEO:'], max_new_tokens=20, seed=3, chunk=3))
    assert ''.join(piece.text for piece in pieces) == one
    assert pieces[-1].finish == 'length'


def test_weights_of_half_the_size_cost_a_loss_that_evaluation_tells(run, runs):
    asked = dataclasses.replace(run.config, sample=SampleConfig(weights='bfloat16'))
    reduced = gptjax.Run.open(runs / 'char', asked=asked)
    loss, exact = reduced.evaluate().val_loss, run.evaluate().val_loss
    assert loss != exact
    assert loss == pytest.approx(exact, abs=1e-3)
    text = run.generate('ROMEO:', max_new_tokens=20, seed=3, weights='bfloat16')
    assert len(text) == 20
    assert run.generate('ROMEO:', max_new_tokens=20, seed=3, weights='float32') == run.generate(
        'ROMEO:', max_new_tokens=20, seed=3
    )


def test_an_old_run_with_a_knob_without_effect_still_generates(run):
    """Version 0.1.0 accepted sample.beam=4 for a language model and ignored it."""
    kept = dataclasses.replace(run.config, sample=dataclasses.replace(run.config.sample, beam=4))
    old = dataclasses.replace(run, config=kept)
    assert old.generate('ROMEO:', max_new_tokens=9) == run.generate('ROMEO:', max_new_tokens=9)


def test_evaluation_is_that_of_the_command_line(run):
    report = run.evaluate()
    assert report.val_loss == pytest.approx(EXPECTED['char']['val_loss'], rel=1e-6)
    assert str(report).startswith(f'loss {report.val_loss:.4f} nats per token')


def test_an_evaluation_waits_for_no_process_that_is_gone_but_may_take_long(run, monkeypatch):
    given = []

    def watched(**how):
        given.append(how)
        return contextlib.nullcontext()

    monkeypatch.setattr('gptjax.run.processes.watched', watched)
    run.evaluate()
    assert given == [{'stuck_s': math.inf}]


def test_forward_gives_logits_and_attention(run):
    found = run.forward('ROMEO: But', attention=True)
    assert found.logits.shape == (10, run.task.tokenizer.vocab_size)
    assert [weights.shape for weights in found.attention] == [(2, 10, 10)] * 2
    for weights in found.attention:
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
        assert (np.triu(weights[0], 1) == 0).all()
    plain = run.forward('ROMEO: But')
    assert plain.attention is None
    np.testing.assert_allclose(plain.logits, found.logits, atol=1e-5)


def test_scores_are_those_of_the_forward_pass_and_of_the_loss(run):
    text = 'ROMEO: But, sof'
    found, logits = run.score(text), run.forward(text).logits
    log_probs = jax.nn.log_softmax(logits)[np.arange(len(text) - 1), found.tokens[1:]]
    np.testing.assert_allclose(found.log_probs, log_probs, atol=1e-5)
    val = run.task.corpus.val.tokens
    whole = run.score(run.task.tokenizer.decode(val))
    assert len(whole.log_probs) == len(val) - 1  # Longer than the block, in windows.
    assert whole.loss == pytest.approx(run.evaluate().val_loss, rel=1e-5)


@pytest.mark.parametrize(
    ('mistake', 'message'),
    [
        (lambda run: run.generate('♥'), "the character '♥' .* is not in the vocabulary"),
        (lambda run: run.generate('a', temprature=1.0), 'sample.temprature is unknown; did you'),
        (lambda run: run.generate('a', beam=4), 'sample.beam=4 has no effect with task=language'),
        (lambda run: run.generate('a', top_p=2.0), 'sample.top_p=2.0 must be at most 1'),
        (lambda run: run.forward('a' * 99), 'has 99 tokens, and a forward pass takes 1 to'),
        (lambda run: run.score('a'), 'has 1 tokens; a score needs at least 2'),
    ],
)
def test_mistakes_are_one_line_without_flags(run, mistake, message):
    with pytest.raises(UserError, match=message) as caught:
        mistake(run)
    assert '--' not in str(caught.value)
    assert '\n' not in str(caught.value)


def test_what_a_task_has_not_is_refused(runs):
    translation = gptjax.load(runs / 'translation')
    for call in (translation.forward, translation.score):
        with pytest.raises(UserError, match='task=translation has no forward pass over a single'):
            call('abab')
    assert translation.generate('abab c', temperature=0.0) == translation.generate(['abab c'])[0]


def test_an_imported_model_needs_a_text_to_be_evaluated(runs, verse_file):
    run = gptjax.load(runs / 'gpt2')
    with pytest.raises(UserError, match='an imported model has no held-out text'):
        run.evaluate()
    assert run.evaluate(verse_file).val_loss < 4


def test_there_is_no_run(tmp_path):
    with pytest.raises(UserError, match=f'there is no trained model in {tmp_path}; train one'):
        gptjax.load(tmp_path)


def test_importing_the_package_takes_no_time():
    code = 'import sys, gptjax; print("jax" in sys.modules, gptjax.Config().task, len(sys.modules))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith('False language_model')


def test_a_recipe_can_be_trained_from_python(tiny, tmp_path, capsys):
    run = gptjax.train(tiny, tmp_path / 'run')
    assert run.step in (3, 6)
    assert len(run.generate('ROMEO:')) == 20
    assert gptjax.train(tiny, tmp_path / 'run').step == run.step  # It is finished.
    assert '--config' not in capsys.readouterr().err


def test_recipes_have_names():
    assert gptjax.recipe('char:small').model.ngram == 4
    assert gptjax.recipe('bpe').data.tokenizer == 'bpe'
    with pytest.raises(UserError, match=r"recipe 'chra' is unknown; did you mean char\?"):
        gptjax.recipe('chra')
    with pytest.raises(UserError, match=r'char.py:huge is unknown; use :small, :laptop or :baby'):
        gptjax.recipe('char:huge')


def test_loading_a_run_does_not_warn_and_other_messages_still_come(runs, caplog):
    log = logging.getLogger('absl')
    with caplog.at_level(logging.WARNING, logger='absl'):
        gptjax.load(runs / 'char')
        assert caplog.messages == []
        log.warning(ValueError('a message need not be a text'))
    assert caplog.messages == ['a message need not be a text']
