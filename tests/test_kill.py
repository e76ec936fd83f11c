"""A run that is killed again and again ends exactly where an undisturbed one does."""

import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from gptjax import tasks
from gptjax.config import MeshConfig
from gptjax.parallel.mesh import Layout
from gptjax.run_files import load_config
from gptjax.training.checkpoint import Checkpoints
from gptjax.training.loop import abstract_state
from tests.conftest import ROOT

KILLS = 10
STEPS = 4000
FLAGS = [
    '--config=configs/char.py:small',
    '--mode=train',
    '--config.model.block_size=16',
    '--config.model.n_layer=1',
    '--config.model.n_head=2',
    '--config.model.n_embd=16',
    '--config.model.ngram_rows=64',
    '--config.model.dropout=0.1',
    '--config.train.batch_size=4',
    f'--config.train.steps={STEPS}',
    '--config.train.save_every=40',
    '--config.train.eval_every=40',
    '--config.train.eval_batches=1',
]


def start(folder, verse_file):
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # XLA promises the same bits on one core only.
    try:
        return subprocess.Popen(
            [
                sys.executable,
                str(ROOT / 'main.py'),
                *FLAGS,
                f'--workdir={folder / "run"}',
                f'--config.data.path={verse_file}',
                f'--config.data.cache_dir={folder / "cache"}',
            ],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1'},
        )
    finally:
        os.sched_setaffinity(0, cores)


def final_state(folder):
    workdir = folder / 'run'
    task = tasks.load(load_config(workdir), workdir)
    like = abstract_state(task, Layout(MeshConfig(data=1), 1))
    return Checkpoints(workdir / 'checkpoints').restore(like, [STEPS])[1]


@pytest.mark.slow
def test_sigkill_at_random_moments_changes_no_bit(tmp_path, verse_file):
    undisturbed = start(tmp_path / 'undisturbed', verse_file)
    _, stderr = undisturbed.communicate()
    assert undisturbed.returncode == 0, stderr

    choose = random.Random(7)
    folder = tmp_path / 'killed'
    resumed = []
    for _ in range(KILLS):
        process = start(folder, verse_file)
        for line in process.stderr:
            if line.startswith('Continuing'):
                resumed.append(line)
            if line.startswith(('step', 'Continuing')):
                break
        time.sleep(choose.uniform(0, 3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(folder, verse_file)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert len(resumed) == KILLS - 1
    assert 'Continuing' in stderr

    expected, found = (final_state(tmp_path / name) for name in ('undisturbed', 'killed'))
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a, b)
