"""Translation from end to end: the same loop and modes, its figures, and every mistake."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from gptjax import tasks
from gptjax.config import (
    Config,
    DataConfig,
    MeshConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
    TranslationConfig,
)
from gptjax.errors import UnknownTextError, UserError
from gptjax.generation.requests import whole_texts
from gptjax.parallel.mesh import Layout
from gptjax.tasks.translation import scores
from gptjax.tasks.translation.scores import score
from gptjax.training import steps
from gptjax.training.loop import StepRunner, initial_state
from gptjax.training.losses import cross_entropy
from tests.conftest import AS_USERS, ROOT, one_line, replace, run_main


@pytest.fixture(scope='module')
def tsv(tmp_path_factory):
    draw = np.random.default_rng(0)
    words = (
        ''.join(draw.choice(list('abcd .'), n)).strip() or 'a' for n in draw.integers(2, 13, 200)
    )
    path = tmp_path_factory.mktemp('pairs') / 'pairs.tsv'
    path.write_text(''.join(f'{word}\t{word[::-1]}\n' for word in words))
    return path


@pytest.fixture(scope='module')
def config(tsv, tmp_path_factory) -> Config:
    return Config(
        name='pairs',
        task='translation',
        model=ModelConfig(block_size=16, n_layer=1, n_head=2, n_embd=16, residual_init='plain'),
        data=DataConfig(path=str(tsv), cache_dir=str(tmp_path_factory.mktemp('cache'))),
        translation=TranslationConfig(buckets=3, copy=True),
        train=TrainConfig(steps=6, batch_size=8, learning_rate=1e-2),
        sample=SampleConfig(temperature=0.0, chunk=4, max_new_tokens=16),
    )


@pytest.fixture(scope='module')
def task(config):
    return tasks.create(config, print)


@pytest.fixture(scope='module')
def state(task):
    return initial_state(task, Layout(MeshConfig(data=1), 8))


def test_there_are_as_many_compilations_as_shapes(task, state):
    traced = []
    counting = dataclasses.replace(task)
    train_step = task.train_step

    def counted(*args):
        traced.append(args[1]['source'].shape)
        return train_step(*args)

    object.__setattr__(counting, 'train_step', counted)
    layout = Layout(MeshConfig(data=1), 8)
    runner, done = StepRunner(counting, layout, state), 0
    state = initial_state(task, layout)
    while done < 60:
        state, metrics, n = runner.run(state, done, 1)
        done += n
    assert np.isfinite(metrics['loss']).all()
    assert len(traced) == len(set(traced)) == len(task.train.shapes) == 3


def test_accumulation_weighs_tokens(task, state):
    batch = task.train_batch(3)
    assert len(set(batch['lengths'].tolist())) > 1
    total, count = jax.jit(task.loss)(state.params, batch)
    assert count == batch['lengths'].sum()
    halves = [jax.tree.map(lambda x, i=i: x[i::2], batch) for i in (0, 1)]
    parts = [jax.jit(task.loss)(state.params, half) for half in halves]
    assert float(total / count) == pytest.approx(
        float(sum(p[0] for p in parts) / sum(p[1] for p in parts)), rel=1e-6
    )


@pytest.mark.parametrize('mesh', [{'data': 8}, {'data': 2, 'fsdp': 2, 'tensor': 2}])
def test_eight_devices_equal_one(task, state, mesh):
    batch = task.train_batch(0)
    expected, count = jax.jit(task.loss)(state.params, batch)
    layout = Layout(MeshConfig(**mesh), 8)
    split = initial_state(task, layout)
    if layout.mesh.shape['tensor'] > 1:
        kernel = split.params['params']['decoder']['block_0']['cross_attn']['out']['kernel']
        assert kernel.sharding.spec == jax.sharding.PartitionSpec('tensor', None, 'fsdp')
    loss, same_count = jax.jit(task.loss)(split.params, layout.put(batch))
    assert float(same_count) == float(count)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_label_smoothing_is_for_training_alone_and_spreads_evenly(task, state):
    logits = jax.random.normal(jax.random.key(0), (1, 2, 5)).at[..., 4].set(-np.inf)
    targets, lengths = np.array([[1, 2]]), np.array([1])
    log_probs = np.asarray(jax.nn.log_softmax(logits))[0, 0]
    total, _ = cross_entropy(logits, targets, lengths, 0.2)
    assert float(total) == pytest.approx(-0.8 * log_probs[1] - 0.2 * log_probs[:4].mean(), rel=1e-5)
    smooth = dataclasses.replace(
        task, config=replace(task.config, translation={'label_smoothing': 0.1})
    )
    batch = task.train_batch(0)
    plain = task.loss(state.params, batch)[0]
    assert smooth.loss(state.params, batch)[0] == plain
    assert smooth.loss(state.params, batch, jax.random.key(0))[0] != plain


def texts_of(task, state, lines, sample):
    return whole_texts(task.stream(state.params, lines, sample))


def test_lines_come_back_in_order_and_empty_ones_empty(task, state):
    lines = ['abc', '', 'd a.', '  ', 'abcdabcdabcd', 'b']
    for options in ({}, {'beam': 3}, {'temperature': 0.9}):
        sample = dataclasses.replace(task.config.sample, **options)
        texts = texts_of(task, state, lines, sample)
        assert texts[1] == texts[3] == ''
        alone = [texts_of(task, state, [line], sample)[0] for line in lines]
        assert texts == alone


def test_n_best_of_a_beam_stand_next_to_each_other(task, state):
    sample = dataclasses.replace(task.config.sample, beam=4, num_samples=3)
    texts = texts_of(task, state, ['abc', ''], sample)
    assert len(texts) == 6
    assert texts[3:] == ['', '', '']
    best = dataclasses.replace(sample, num_samples=1)
    assert texts_of(task, state, ['abc'], best) == texts[:1]


def test_a_line_over_the_block_is_refused_or_split_and_never_cut(task, state):
    line, sample = 'abcd abcd. dcba dcba.', task.config.sample
    with pytest.raises(UserError, match=r"line 2 \('abcd ab.* has 22 tokens.* takes 16; .*=split"):
        task.stream(state.params, ['a', line], sample)
    split = dataclasses.replace(sample, long_lines='split')
    texts = texts_of(task, state, [line], split)
    halves = texts_of(task, state, ['abcd abcd.', 'dcba dcba.'], sample)
    assert texts == [' '.join(halves)]
    with pytest.raises(UserError, match=r'line 1 .*a word of it is too long: shorten it'):
        task.stream(state.params, ['a' * 30], split)


def test_unknown_characters_are_refused_at_once(task, state):
    with pytest.raises(UnknownTextError, match="'x'"):
        task.stream(state.params, ['abx'], task.config.sample)


@pytest.mark.parametrize(
    ('sections', 'message'),
    [
        (
            {'model': {'block_size': 8}},
            r'training pairs are longer than model.block_size=8: up to',
        ),
        (
            {'train': {'logits_chunk': 4}},
            'logits_chunk=4 has no effect with task=translation; leave train.logits_chunk at 0',
        ),
        ({'train': {'steps_per_call': 5}}, r'steps_per_call=5 needs .* there are 3; .*buckets=1'),
    ],
)
def test_what_cannot_be_trained_is_refused(config, sections, message):
    with pytest.raises(UserError, match=message):
        tasks.create(replace(config, **sections), print)


def test_without_sacrebleu_one_line_says_how_to_install_it(config, monkeypatch):
    monkeypatch.setattr(scores.importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(UserError, match=r"not installed; install it: pip install 'sacrebleu"):
        tasks.create(config, print)


def test_scores_are_sacrebleus():
    same = score(['the cat sat on the mat'] * 2, ['the cat sat on the mat'] * 2)
    assert same == pytest.approx({'bleu': 100, 'chrf': 100, 'exact_match': 1})
    half = score(['the cat sat on the mat', 'x'], ['the cat sat on the mat', 'y'])
    assert half['exact_match'] == 0.5
    assert 0 < half['bleu'] < 100


def test_separate_vocabularies_are_saved_and_told_apart(config, tmp_path):
    path = tmp_path / 'x.tsv'
    path.write_text('ab\txyz\nba\tzyx\nab\txyz\n')
    separate = replace(
        config,
        data={'path': str(path)},
        translation={'shared_vocab': False, 'copy': False},
    )
    task = tasks.create(separate, print)
    assert (task.tokenizer.vocab_size, task.target_tokenizer.vocab_size) == (3, 4)
    task.save(tmp_path)
    again = tasks.load(separate, tmp_path)
    assert again.fingerprint() == task.fingerprint()
    assert again.val_pairs == task.val_pairs
    other = dataclasses.replace(task, config=config).fingerprint()
    assert other['translation.copy'] != task.fingerprint()['translation.copy']
    (tmp_path / 'val.tsv').write_text('ab\tother\n')
    with pytest.raises(UserError, match=r'is damaged .*val.tsv is not what was saved'):
        tasks.load(separate, tmp_path)


SMALL = (
    '--config=configs/reverse.py',
    '--config.train.steps=20',
    '--config.train.batch_size=8',
    '--config.model.n_embd=16',
    '--config.model.n_layer=1',
)


@pytest.fixture(scope='module')
def run(tmp_path_factory, tsv):
    """A work directory that main.py trained for some steps, without its text."""
    folder = tmp_path_factory.mktemp('run')
    text = shutil.copy(tsv, folder / 'pairs.tsv')
    workdir = f'--workdir={folder / "run"}'
    done = run_main(*SMALL, workdir, f'--config.data.path={text}', '--mode=train')
    assert done.returncode == 0, done.stderr
    assert 'for a copy of the source' in done.stderr
    assert 'reference' in done.stderr
    os.remove(text)
    return workdir


def test_the_modes_do_not_ask_which_task_it_is(run):
    done = run_main(*SMALL, run, '--mode=eval', '--json')
    figures = json.loads(done.stdout)
    assert {'val_loss', 'perplexity', 'tokens', 'bleu', 'chrf', 'exact_match', 'step'} <= set(
        figures
    )
    assert 0 <= figures['exact_match'] <= 1
    assert figures['copy'].keys() == {'bleu', 'chrf', 'exact_match'}
    assert figures['examples'][0].keys() == {'source', 'reference', 'output'}
    lines = 'abc\n\ncab\n'
    done = run_main(*SMALL, run, '--mode=sample', '--prompt_file=-', input=lines)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split('\n')
    assert (len(printed), printed[1], printed[3]) == (4, '', '')
    done = run_main(
        *SMALL,
        run,
        '--mode=sample',
        '--prompt=abc',
        '--json',
        '--config.sample.beam=2',
        '--config.sample.num_samples=2',
    )
    samples = json.loads(done.stdout)['samples']
    assert [sample['prompt'] for sample in samples] == ['abc', 'abc']
    assert samples[0]['text'] != samples[1]['text']
    again = run_main(*SMALL, run, '--mode=bench')
    assert 'bench compares language models, and reverse is a translation' in one_line(again, 1)


ON_ONE_CORE = """
import sys
sys.path.insert(0, {root!r})
import jax, jax.numpy as jnp
from tests.tasks.translation.test_seq2seq import make
from gptjax.generation.rules import Rules
from gptjax.tasks.translation.decode import translate
model, params, (source_BS, lengths_B, tokens_BT), apply = make('copying')
whole = apply(params, source_BS, lengths_B, tokens_BT)
for b in range(3):
    row = slice(b, b + 1)
    alone = apply(params, jnp.tile(source_BS[row], (3, 1)), lengths_B[jnp.array([b] * 3)],
                  jnp.tile(tokens_BT[row], (3, 1)))
    assert (alone[0] == whole[b]).all(), b
print('same bits')
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='taskset')
def test_batch_mates_change_no_bit_on_one_core(tmp_path):
    script = tmp_path / 'alone.py'
    script.write_text(ON_ONE_CORE.format(root=str(ROOT)))
    core = str(min(os.sched_getaffinity(0)))
    done = subprocess.run(
        ['taskset', '-c', core, sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.stdout == 'same bits\n', done.stderr


@pytest.mark.slow(minutes=4)
def test_the_toy_is_learnt_to_99_percent(tmp_path):
    common = ('--config=configs/reverse.py', f'--workdir={tmp_path / "run"}')
    cores = {'JAX_NUM_CPU_DEVICES': str(len(os.sched_getaffinity(0)))}
    done = run_main(*common, '--mode=train', env=cores | AS_USERS)
    assert done.returncode == 0, done.stderr
    done = run_main(*common, '--mode=eval', '--json')
    assert json.loads(done.stdout)['exact_match'] >= 0.99


def test_step_key_is_used_only_with_dropout(task, state):
    batch = task.train_batch(0)
    keys = [steps.step_key(state), jax.random.key(9)]
    plain = [task.loss(state.params, batch, key)[0] for key in keys]
    assert plain[0] == plain[1]
    dropping = dataclasses.replace(task, config=replace(task.config, model={'dropout': 0.5}))
    dropped = [dropping.loss(state.params, batch, key)[0] for key in keys]
    assert dropped[0] != dropped[1]
