"""What cannot fit is refused before anything is allocated; what runs is never refused."""

import dataclasses
import time

import pytest

from gptjax import recipes, trainer
from gptjax.config import MeshConfig
from gptjax.errors import UserError
from gptjax.parallel.mesh import Layout
from gptjax.plan import preflight, shapes
from gptjax.plan.preflight import refuse_what_cannot_fit
from gptjax.plan.units import in_bytes, in_seconds
from tests.conftest import one_line, replace, run_main


def refusal(config, vocab_size=64):
    task = shapes.of_vocabulary(config, vocab_size)
    layout = Layout(MeshConfig(data=1), config.train.batch_size // config.train.accumulate)
    with pytest.raises(UserError) as error:
        refuse_what_cannot_fit(task, layout)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_a_model_too_wide_is_refused_in_two_seconds(tiny):
    began = time.perf_counter()
    text = refusal(replace(tiny, model={'n_embd': 100_000, 'n_layer': 12}))
    assert time.perf_counter() - began < 2
    assert text.startswith('model.n_embd=100000 with model.n_layer=12 and 8 rows on each device')
    width = int(text.rpartition('try model.n_embd=')[2])
    assert 100 < width < 20_000
    # What it proposes fits.
    task = shapes.of_vocabulary(replace(tiny, model={'n_embd': width, 'n_layer': 12}), 64)
    refuse_what_cannot_fit(task, Layout(MeshConfig(data=1), 8))


def test_the_command_says_so_in_one_line_and_leaves_nothing(tiny, verse_file, tmp_path):
    done = run_main(
        '--config=configs/char.py:small',
        f'--config.data.path={verse_file}',
        f'--config.data.cache_dir={tmp_path}/cache',
        f'--workdir={tmp_path}/run',
        '--config.model.n_embd=100000',
    )
    assert '; try --config.model.n_embd=' in one_line(done, 1)
    assert not (tmp_path / 'run').exists()


def test_a_large_model_is_refused_before_its_data_are_prepared(tmp_path):
    done = run_main(
        '--config=configs/gpt2.py:124m',
        f'--config.data.path={tmp_path}/not-there.txt',
        f'--workdir={tmp_path}/run',
        '--config.model.n_embd=120000',
    )
    line = one_line(done, 1)
    assert 'model.n_embd=120000 with model.n_layer=12' in line
    assert '; try --config.model.n_embd=' in line


def test_too_many_rows_at_a_time_become_micro_batches(tiny):
    config = replace(tiny, model={'block_size': 4096}, train={'batch_size': 2**20})
    text = refusal(config)
    parts = int(text.rpartition('; try train.accumulate=')[2])
    assert parts > 1 and 2**20 % parts == 0
    task = shapes.of_vocabulary(replace(config, train={'accumulate': parts}), 64)
    refuse_what_cannot_fit(task, Layout(MeshConfig(data=1), 2**20 // parts))


def test_where_nothing_fits_it_says_what_to_lower(tiny, monkeypatch):
    monkeypatch.setattr(preflight, 'memory_of', lambda layout: 10)
    assert refusal(tiny).endswith(
        '; lower model.n_layer, model.block_size or train.batch_size, or use another machine'
    )


def test_unknown_memory_refuses_nothing(tiny, monkeypatch):
    monkeypatch.setattr(preflight, 'memory_of', lambda layout: None)
    task = shapes.of_vocabulary(replace(tiny, model={'n_embd': 100_000}), 64)
    refuse_what_cannot_fit(task, Layout(MeshConfig(data=1), 8))


def test_a_device_with_memory_of_its_own_is_asked():
    class Device:
        platform = 'gpu'

        def memory_stats(self):
            return {'bytes_limit': 123}

    class Here:
        class mesh:  # noqa: N801
            class devices:  # noqa: N801
                flat = (Device(),)

    assert preflight.memory_of(Here) == 123


@pytest.mark.parametrize('name', ['char:small', 'char:laptop', 'char:baby', 'textbook', 'bpe'])
def test_recipes_pass(name):
    config = recipes.find(name)
    task = shapes.of_vocabulary(config, 4096)
    refuse_what_cannot_fit(task, Layout(MeshConfig(data=1), config.train.batch_size))


def test_the_trainer_asks_before_it_makes_a_state(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, 'initial_state', None)
    with pytest.raises(UserError, match='needs at least'):
        trainer.train_run(replace(tiny, model={'n_embd': 100_000}), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_the_bound_is_below_what_the_compiler_allocates(tiny):
    from gptjax.plan import compiled, memory

    task, layout = shapes.of_vocabulary(tiny, 64), Layout(MeshConfig(data=1), 8)
    least = memory.least(task.config, shapes.leaves(task), layout.mesh.shape, rows=8, vocab_size=64)
    assert least <= compiled.total(compiled.measure(task, layout)['memory'])
    assert dataclasses.is_dataclass(task)


def test_units():
    assert [in_bytes(n) for n in (12, 1234, 2e8, 3.2e13)] == ['12 B', '1.2 kB', '200 MB', '32.0 TB']
    assert [in_seconds(s) for s in (2e-5, 0.25, 2, 90, 7200)] == [
        *('20.0 us', '250.0 ms', '2.0 s', '1.5 minutes', '2.0 hours')
    ]
