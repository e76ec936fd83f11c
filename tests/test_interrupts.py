"""Signals: the first one is answered at once, a second one ends the process, nothing is damaged."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from gptjax.interrupts import Interrupts
from tests.conftest import ROOT

# A run whose step number BLOCKS_AT computes for minutes inside one compiled program.
CHILD = """
import os, runpy, sys
import jax, jax.numpy as jnp
from gptjax.tasks import base

fast = base.steps.make_train_step

def slow(*args, **how):
    train_step = fast(*args, **how)

    def blocking(state, batch):
        turns = jnp.where(state.step == int(os.environ['BLOCKS_AT']), 2**31 - 1, 0)
        waste = lambda i, x: jnp.sin(x) + jnp.cos(x).mean()
        wasted = jax.lax.fori_loop(0, turns, waste, jnp.ones(64))
        state, metrics = train_step(state, batch)
        return state, metrics | {'loss': metrics['loss'] + 0 * wasted.mean()}

    return blocking

base.steps.make_train_step = slow
runpy.run_path('main.py', run_name='__main__')
"""
SIZE = ('n_layer=1', 'n_head=1', 'n_embd=8', 'block_size=8', 'ngram_rows=8')
FLAGS = [
    '--config=configs/char.py:small',
    '--mode=train',
    *(f'--config.model.{knob}' for knob in SIZE),
    '--config.train.steps=4',
    '--config.train.batch_size=2',
    '--config.train.save_every=2',
    '--config.train.eval_every=2',
    '--config.train.eval_batches=1',
    '--config.train.steps_per_call=1',
]


def start(tmp_path, verse_file, blocks_at):
    place = [f'--workdir={tmp_path}/run', f'--config.data.cache_dir={tmp_path}/cache']
    return subprocess.Popen(
        [sys.executable, '-c', CHILD, *FLAGS, *place, f'--config.data.path={verse_file}'],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1', 'BLOCKS_AT': str(blocks_at)},
    )


@pytest.mark.parametrize(
    ('number', 'status', 'blocks_at', 'then'),
    [
        (signal.SIGTERM, 143, 3, 'Continuing {} from step 2 of 4'),
        (signal.SIGINT, 130, 0, '4 steps of'),
    ],
)
def test_signals_in_a_step_of_minutes_are_answered_at_once_and_the_run_goes_on_later(
    tmp_path, verse_file, number, status, blocks_at, then
):
    child = start(tmp_path, verse_file, blocks_at)
    for line in child.stderr:
        if 'the first step compiles' in line:
            break
    saved = tmp_path / 'run' / 'checkpoints' / '2'
    deadline = time.monotonic() + 60
    while blocks_at and not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(6 if not blocks_at else 1.5)
    child.send_signal(number)
    began = time.monotonic()
    late = threading.Timer(10, child.kill)  # Or the next lines would wait for the step.
    late.start()
    line = next((line for line in child.stderr if line.startswith(number.name)), '')
    late.cancel()
    assert time.monotonic() - began < 1
    assert line == (
        f'{number.name}: saving at the next step, then leaving; once more leaves at once\n'
    )
    time.sleep(1)
    assert child.poll() is None  # The step still goes on.
    child.send_signal(number)
    assert child.wait(timeout=2) == status
    assert child.stderr.read() == ''

    again = start(tmp_path, verse_file, -1)
    stderr = again.communicate(timeout=120)[1]
    assert again.returncode == 0, stderr
    assert then.format(tmp_path / 'run') in stderr
    assert 'damaged' not in stderr


def test_handlers_come_back_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
    assert interrupts.signal is signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_nothing_is_changed_outside_the_main_thread():
    seen = []

    def work():
        with Interrupts() as interrupts:
            seen.append((interrupts.signal, signal.getsignal(signal.SIGINT)))

    expected = [(None, signal.getsignal(signal.SIGINT))]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == expected
