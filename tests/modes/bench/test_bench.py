"""The benchmark: both sides do the same work, and a slower side shows in the ratio."""

import dataclasses
import json
import re
import subprocess
import sys
import time
from contextlib import ExitStack

import numpy as np
import pytest

from gptjax import tasks
from gptjax.chips import hardware
from gptjax.config import BenchConfig
from gptjax.errors import UserError
from gptjax.modes.bench import peers, report, run, turns
from gptjax.modes.bench.worker import Job, Worker
from gptjax.modes.request import Request
from tests.conftest import ROOT, replace, run_main

VARIANTS = {
    'gpt2': {
        'position': 'learned',
        'norm': 'layer',
        'activation': 'gelu_exact',
        'qk_norm': False,
        'bias': True,
        'tied_head': True,
        'residual_init': 'scaled',
    },
    'ours': {'ngram': 3, 'ngram_rows': 37},
    'textbook': {
        'position': 'sinusoidal',
        'norm': 'layer',
        'norm_place': 'after',
        'activation': 'relu',
        'head_bias': True,
        'scale_embedding': True,
        'vocab_multiple': 16,
    },
}


@pytest.mark.torch
@pytest.mark.parametrize('variant', VARIANTS)
def test_loss_gradients_and_three_steps_agree_with_pytorch(tiny, tmp_path, variant):
    config = replace(tiny, model=VARIANTS[variant], train={'learning_rate': 1e-4})
    job = run.make_job(tasks.create(config, print), tmp_path)
    parity = run.parity(job)
    assert parity['passed'], parity
    assert parity['loss'] <= 1e-4
    assert parity['largest'] <= 1e-4
    biases = [f'block_{i}.attn.key.bias' for i in (0, 1)]
    assert parity['no_gradient'] == (biases if config.model.bias else [])


@pytest.mark.torch
def test_a_wrong_twin_is_noticed(tiny, tmp_path, monkeypatch):
    """Another activation on one side only: parity has to fail."""
    job = run.make_job(tasks.create(tiny, print), tmp_path)
    wrong = dataclasses.replace(job, config=replace(job.config, model={'activation': 'gelu'}))
    original = run.Worker

    def worker(module, job):
        return original(module, wrong if module == run.TWIN else job)

    monkeypatch.setattr(run, 'Worker', worker)
    assert not run.parity(job)['passed']


def test_a_job_survives_the_pipe(tiny, tmp_path):
    job = run.make_job(tasks.create(tiny, print), tmp_path)
    assert Job.from_json(job.to_json()) == job
    assert all((value != 0).all() for value in job.weights().values())
    assert (job.batch(job.tokens(), 3)['inputs'] == job.batch(job.tokens(), 3)['inputs']).all()


class Sleeper:
    """A side that takes a known time for each step."""

    def __init__(self, step_s):
        self.step_s = step_s

    def __call__(self, steps):
        time.sleep(steps * self.step_s)
        return steps * self.step_s


def test_a_side_that_is_twice_as_slow_halves_its_ratio(tiny):
    config = dataclasses.replace(tiny, bench=BenchConfig(rounds=3, turn_s=0.02))
    ratios = []
    for twin_s in (0.002, 0.004):
        sides = {'jax': Sleeper(0.002), 'torch_eager': Sleeper(twin_s)}
        measured = turns.compare(turns.in_turns(sides, config, tokens=100, trial=3))
        ratios.append(measured['ratio'])
    assert ratios == pytest.approx([1.0, 2.0], rel=1e-6)


def test_the_ratio_is_over_the_best_of_pytorchs_modes():
    sides = {'jax': [300.0, 330.0], 'torch_eager': [100.0, 110.0], 'torch_compile': [150.0, 150.0]}
    compared = turns.compare({name: turns.summary(speeds) for name, speeds in sides.items()})
    assert compared['best'] == 'torch_compile'
    assert compared['ratio'] == pytest.approx(2.1)
    assert compared['ratios']['torch_eager']['all'] == [3.0, 3.0]


def test_the_memory_of_the_parent_is_not_counted():
    child = 'from gptjax.modes.bench.machine import resident_bytes; print(resident_bytes())'
    parent = (
        'import subprocess, sys\n'
        "held = b'x' * 500_000_000\n"
        'subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', parent, child], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert 5e6 < int(done.stdout) < 400e6


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        ({}, False),
        (VARIANTS['gpt2'], True),
        (VARIANTS['gpt2'] | {'ngram': 2}, False),
        (VARIANTS['gpt2'] | {'tied_head': False}, False),
        (VARIANTS['textbook'], False),
    ],
)
def test_hugging_face_is_measured_where_it_has_the_model(tiny, monkeypatch, change, expected):
    monkeypatch.setattr(run.importlib.util, 'find_spec', lambda name: name)
    assert run.huggingface_has(replace(tiny, model=change)) == expected


def test_pytorch_without_a_cache_can_be_left_out(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(run, '_time_texts', lambda sides, *_: asked.append(set(sides)) or {})
    workers = dict.fromkeys(('jax', 'torch_eager', 'torch_compile', 'ctranslate2'))
    for uncached in (True, False):
        run.time_generation(workers, replace(tiny, bench={'uncached': uncached}))
    peers = {'jax', 'ctranslate2'}
    assert asked == [peers | {'torch_eager'}] * 2 + [{'jax', 'torch_eager'}, peers, peers, {'jax'}]


def test_differences_are_relative():
    ours = {'a': np.array([[3.0, 4.0]])}
    assert run.difference(ours, {'a': np.array([3.0, 4.5])}) == {'a': pytest.approx(0.1)}


FLAGS = [
    '--config=configs/char_nanogpt.py:cpu',
    '--mode=bench',
    '--json',
    '--config.model.block_size=16',
    '--config.model.n_layer=1',
    '--config.model.n_embd=16',
    '--config.train.optimizer=muon',
    '--config.bench.rounds=2',
    '--config.bench.turn_s=0.01',
    '--config.bench.batch_size=2',
    '--config.bench.torch_compile=False',
    '--config.sample.max_new_tokens=20',
]


@pytest.mark.torch
def test_bench_writes_its_figures_and_a_chart(tmp_path, verse_file):
    done = run_main(*FLAGS, f'--config.data.path={verse_file}', f'--workdir={tmp_path}')
    assert done.returncode == 0, done.stderr
    assert 'both sides are measured with AdamW' in done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / 'bench.json').read_text())
    assert result['parity']['passed']
    generate = result['generate']
    for group in (result['train'], *(generate[name] for name in ('batch_1', 'batch_2', 'long'))):
        assert {'jax', 'torch_eager'} <= group['sides'].keys()
        fastest = max(
            (name for name in group['sides'] if name.startswith('torch')),
            key=lambda name: group['sides'][name]['tokens_per_s'],
        )
        assert group['best'] == fastest
        assert group['ratio'] == pytest.approx(sum(group['ratios'][fastest]['all']) / 2)
    assert result['generate']['ratio'] == result['generate']['batch_1']['ratio']
    sides = result['train']['sides']
    assert sides['jax'].keys() >= {'step_ms', 'flops_per_s', 'mfu', 'first_step_s'}
    assert result['about']['torch_eager']['version'].startswith('2.')
    assert result['command'].endswith('--mode=bench')
    assert (tmp_path / 'bench.png').read_bytes().startswith(b'\x89PNG')
    assert 'PyTorch, eager' in report.table(result)


def test_without_pytorch_jax_is_measured_alone(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run.importlib.util, 'find_spec', lambda name: None)
    bench = BenchConfig(rounds=2, turn_s=0.01, batch_size=2)
    config = dataclasses.replace(tiny, bench=bench)
    assert run.run(Request(config=config, workdir=tmp_path / 'run', as_json=True)) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert "PyTorch is not installed: measuring JAX alone. For both: pip install -e '.[bench]'" in (
        captured.err
    )
    assert result['train']['sides'].keys() == {'jax'}
    assert 'ratio' not in result['train']
    assert 'parity' not in result


@pytest.mark.torch
@pytest.mark.parametrize('bias', [True, False])
def test_peers_continue_a_prompt_with_the_same_tokens(tiny, tmp_path, capsys, bias):
    """Hugging Face's GPT-2 and CTranslate2 on our export, loaded as a benchmark loads them."""
    tokens = {'prompt_tokens': 5}
    config = replace(tiny, model=VARIANTS['gpt2'] | {'bias': bias}, bench=tokens)
    task = tasks.create(config, print)
    job = run.make_job(task, tmp_path)
    with ExitStack() as stack:
        ours = stack.enter_context(Worker(run.JAX, job))
        workers = run.start_peers(task, job, ours, stack)
        assert workers.keys() == {'huggingface', 'ctranslate2'}
        for worker in workers.values():
            assert len(worker.call('continuation', tokens=7)) == 7
            assert worker.call('generate', batch_size=2, tokens=3, texts=1, greedy=False) > 0
    assert 'Warning' not in capsys.readouterr().err


@pytest.mark.torch
def test_a_peer_with_another_model_is_noticed(tiny, tmp_path, capsys, monkeypatch):
    original = run.export_hf.write

    def wrong(task, params, target):
        head = -params['embed']['embedding']
        return original(task, params | {'embed': {'embedding': head}}, target)

    monkeypatch.setattr(run.export_hf, 'write', wrong)
    task = tasks.create(replace(tiny, model=VARIANTS['gpt2']), print)
    job = run.make_job(task, tmp_path)
    with ExitStack() as stack:
        run.start_peers(task, job, stack.enter_context(Worker(run.JAX, job)), stack)
    said = capsys.readouterr().err
    for name in ('Hugging Face, cached', 'CTranslate2, float32'):
        assert f'Warning: {name} continues the prompt with other tokens' in said


def test_a_prompt_that_fills_the_block_is_refused_before_anything_is_measured(tiny, tmp_path):
    config = replace(tiny, bench={'prompt_tokens': tiny.model.block_size})
    with pytest.raises(UserError, match=r'bench\.prompt_tokens=.* leaves no room'):
        run.run(Request(config=config, workdir=tmp_path / 'run'))


@pytest.mark.parametrize(
    ('packages', 'expected'),
    [
        ({'torch', 'transformers', 'ctranslate2'}, ['huggingface', 'ctranslate2']),
        ({'torch', 'transformers'}, ['huggingface']),
        ({'torch', 'ctranslate2'}, []),
        ({'transformers', 'ctranslate2'}, []),
    ],
)
def test_peers_are_those_whose_packages_are_all_there(monkeypatch, packages, expected):
    monkeypatch.setattr(peers.importlib.util, 'find_spec', lambda name: name in packages or None)
    assert peers.installed() == expected


def test_the_hardware_is_the_processor_with_its_cores():
    assert re.fullmatch(r'.+, \d+ cores(, [A-Z0-9 -]+)*', hardware())


def test_the_share_of_the_limit_is_that_of_reading_or_of_arithmetic():
    """Few rows: all weights are read; many: they are multiplied."""
    most = {'step_s': 0.5, 'flops_per_s': 1e9, 'weights': 1e6, 'weight_bytes': 4e6}
    result = {'limit': most | {'bytes_per_s': 8e9}, 'tokens_per_step': 100}
    assert report.limit(result, {}) == 200
    assert report.limit(result, {'batch_size': 1}) == pytest.approx(500)  # 2 ms of arithmetic
    result['limit']['bytes_per_s'] = 1e9
    assert report.limit(result, {'batch_size': 1}) == pytest.approx(250)  # 4 ms of reading
