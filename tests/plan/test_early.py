"""Blocks that cannot fit are refused before JAX is imported; what runs is never refused."""

import dataclasses
import re
import subprocess
import sys
import time

import pytest

import gptjax
from gptjax.config import MeshConfig
from gptjax.devices import free_memory
from gptjax.errors import UserError
from gptjax.plan import early, memory, shapes
from gptjax.plan.early import refuse_blocks_that_cannot_fit
from gptjax.plan.preflight import refuse_what_cannot_fit
from gptjax.training.loop import layout_of
from tests.conftest import one_line, replace, run_main

WIDE = {'n_embd': 120_000}


@pytest.fixture(autouse=True)
def one_copy(monkeypatch):
    monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '1')


def refusal(config):
    with pytest.raises(UserError) as error:
        refuse_blocks_that_cannot_fit(config)
    return str(error.value)


def test_the_command_refuses_within_two_seconds(tmp_path):
    began = time.perf_counter()
    done = run_main(
        '--config=configs/char.py:small',
        f'--workdir={tmp_path}/run',
        '--config.model.n_embd=100000',
    )
    assert time.perf_counter() - began < 2
    line = one_line(done, 1)
    assert 'model.n_embd=100000 with model.n_layer=2 needs at least 2.4 TB, and this' in line
    assert re.search(r'; try --config.model.n_embd=\d+$', line)
    assert not (tmp_path / 'run').exists()


def test_jax_is_not_imported_for_it():
    code = 'import sys, gptjax.plan.early; sys.exit("jax" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


@pytest.mark.parametrize('recipe', ['char:small', 'char:baby', 'bpe', 'gpt2:124m'])
def test_the_width_that_it_proposes_fits(recipe):
    config = replace(gptjax.recipe(recipe), model=WIDE)
    width = int(refusal(config).rpartition('try model.n_embd=')[2])
    config = dataclasses.replace(config, mesh=MeshConfig(data=1))
    task = shapes.of_vocabulary(replace(config, model={'n_embd': width}), 50_257)
    refuse_what_cannot_fit(task, layout_of(task))


@pytest.mark.parametrize(
    'train',
    [
        *({'optimizer': optimizer} for optimizer in early.MOMENTS),
        {'moment_dtype': 'bfloat16'},
        {'average': 0.9},
        {'grad_clip': 0.0},
    ],
)
def test_it_counts_no_more_than_the_closer_look(tiny, train):
    """Which traces the state; so nothing is refused here that it would let pass."""
    config = replace(tiny, model={'n_embd': 512}, train=train)
    task = shapes.of_vocabulary(config, 64)
    arrays, sizes = shapes.leaves(task), {'data': 1, 'fsdp': 1, 'tensor': 1}
    least = memory.least(config, arrays, sizes, rows=8, vocab_size=64)
    assert 0.5 * least < early._bytes(config, 512) <= least


def test_what_it_does_not_know_is_left_to_the_closer_look(tiny, monkeypatch):
    wide = replace(tiny, model=WIDE)
    refusal(wide)
    refuse_blocks_that_cannot_fit(replace(tiny, model=WIDE | {'kind': 'bigram'}))
    refuse_blocks_that_cannot_fit(dataclasses.replace(wide, task='gan'))
    refuse_blocks_that_cannot_fit(replace(wide, train={'init_from': 'run'}))  # Its width decides.
    monkeypatch.setattr(early, 'may_have_accelerator', lambda: True)
    refuse_blocks_that_cannot_fit(wide)
    monkeypatch.setattr(early, 'may_have_accelerator', lambda: False)
    monkeypatch.setattr(early, 'free_memory', lambda: None)
    refuse_blocks_that_cannot_fit(wide)


def test_where_no_width_fits_it_says_what_to_lower(tiny, monkeypatch):
    monkeypatch.setattr(early, 'free_memory', lambda: 10)
    assert refusal(tiny).endswith(f'; {early.LOWER}')


def test_the_free_memory_is_less_than_all():
    assert 2**28 < free_memory() < 2**50
