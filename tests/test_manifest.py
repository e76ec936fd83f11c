"""The manifest of a run: no damaged file is used, and no kill makes a run look damaged."""

import dataclasses
import random

import pytest

from gptjax import manifest, run_files, tasks
from gptjax.config import MeshConfig
from gptjax.errors import UserError
from gptjax.modes import train as train_mode
from gptjax.modes.request import Request, open_run
from gptjax.parallel.mesh import Layout
from gptjax.training.loop import initial_state
from tests.conftest import replace

FLIPS = 40


@pytest.fixture(scope='module')
def run(tiny, tmp_path_factory):
    """A trained work directory and its request."""
    workdir = tmp_path_factory.mktemp('run')
    task = tasks.create(tiny, print)
    checkpoints = run_files.checkpoints(workdir)
    checkpoints.save(initial_state(task, Layout(MeshConfig(data=1), 1)), 1.0)
    checkpoints.close()
    run_files.save(task.config, task.save, workdir)
    return Request(config=task.config, workdir=workdir)


def text(request):
    trained = open_run(request)
    return trained.generate('ROMEO:')


@pytest.mark.parametrize('name', ['tokenizer.json', 'config.json', 'data.json', 'manifest.json'])
def test_no_flipped_bit_changes_a_text_silently(run, name):
    path = run.workdir / name
    content, expected = path.read_bytes(), text(run)
    choose, noticed = random.Random(name), 0
    for _ in range(FLIPS):
        flipped = bytearray(content)
        flipped[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        path.write_bytes(flipped)
        try:
            assert text(run) == expected
        except UserError as error:
            noticed += 1
            assert str(path) in str(error)
            assert 'is damaged' in str(error)
        finally:
            path.write_bytes(content)
    assert noticed == FLIPS


def test_the_manifest_lists_all_files_that_a_task_saves(run):
    listed = manifest._read(run.workdir)
    files = {path.name for path in run.workdir.iterdir() if path.is_file()}
    assert (
        listed.keys() == files - {'manifest.json'} >= {'tokenizer.json', 'val.bin', 'config.json'}
    )


def test_a_kill_between_the_two_writes_of_a_new_configuration_does_no_damage(
    run, tmp_path, monkeypatch
):
    workdir = tmp_path
    config = run.config
    for steps, killed in ((10, False), (20, True), (30, True), (40, False)):
        new = replace(config, train={'steps': steps})
        write, written = manifest.write_atomically, []

        def kill_before(path, content, write=write, killed=killed, written=written):
            if killed and path.name == 'config.json':
                raise KeyboardInterrupt
            written.append(path.name)
            write(path, content)

        monkeypatch.setattr(manifest, 'write_atomically', kill_before)
        try:
            run_files.save(new, tasks.create(new, print).save, workdir, continues=steps > 10)
        except KeyboardInterrupt:
            assert killed
        monkeypatch.setattr(manifest, 'write_atomically', write)
        expected = steps if not killed else 10
        assert run_files.load_config(workdir).train.steps == expected


def test_an_old_run_gets_a_manifest_when_it_is_trained_on(tiny, tmp_path, capsys):
    config = replace(tiny, train={'schedule': 'constant'})
    request = Request(config=config, workdir=tmp_path / 'run')
    assert train_mode.run(request) == 0
    path = request.workdir / 'manifest.json'
    path.unlink()
    before = (request.workdir / 'tokenizer.json').read_bytes()
    open_run(request)
    assert not path.exists()
    more = dataclasses.replace(request, config=replace(config, train={'steps': 8}))
    assert train_mode.run(more) == 0
    assert 'Continuing' in capsys.readouterr().err
    assert {'tokenizer.json', 'val.bin', 'data.json', 'config.json'} <= manifest._read(
        request.workdir
    ).keys()
    assert (request.workdir / 'tokenizer.json').read_bytes() == before
    (request.workdir / 'tokenizer.json').write_bytes(before.replace(b'e', b'\xc3', 1))
    with pytest.raises(UserError, match=r'tokenizer.json is not what was saved'):
        train_mode.run(more)
