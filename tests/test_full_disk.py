"""A full disk: one line that says what to do, and the run goes on when there is room."""

import os
import re
import resource
import subprocess
from pathlib import Path

import pytest

from tests.conftest import one_line, run_main

FLAGS = [
    '--config=configs/char.py:small',
    '--mode=train',
    '--config.model.n_layer=1',
    '--config.train.save_every=2',
    '--config.train.eval_every=2',
    '--config.train.eval_batches=1',
]
FILE_SIZE = 1 << 20  # A checkpoint has a file of 14 MB.


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))


@pytest.fixture(params=['file size', 'tmpfs'])
def disk(request, tmp_path):
    """(folder, options of a process for which it is too small, a function that makes room)."""
    if request.param == 'file size':
        yield tmp_path, {'preexec_fn': limit_files}, lambda: None
        return
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip('only root can mount a small file system')
    bigger = ['mount', '-o', 'remount,size=500m', str(folder)]
    yield folder, {}, lambda: subprocess.run(bigger, check=True)
    subprocess.run(['umount', str(folder)], check=True)


def train(disk, verse_file, tmp_path, steps, **options):
    return run_main(
        *FLAGS,
        f'--config.train.steps={steps}',
        f'--workdir={disk}/run',
        f'--config.data.path={verse_file}',
        f'--config.data.cache_dir={tmp_path}/cache',
        env={'JAX_COMPILATION_CACHE_DIR': '', 'TMPDIR': str(tmp_path)},
        **options,
    )


def without_progress(done):
    """The process, without the lines of a run that goes well."""
    usual = r'^(step |No GPU found|Continuing|\d+ steps of|train\.steps was).*\n'
    done.stderr = re.sub(usual, '', done.stderr, flags=re.MULTILINE)
    return done


def test_a_full_disk_is_one_line_that_names_the_rest(disk, verse_file, tmp_path):
    folder, too_small, make_room = disk
    failed = train(folder, verse_file, tmp_path, 4, **too_small)
    line = one_line(without_progress(failed), 1)
    assert re.search(
        r'checkpoint \d could not be saved in .*: (No space left|File too large)', line
    )
    assert 'make room' in line
    assert 'has no checkpoint yet and starts anew' in line
    details = Path(re.search(r'\(all errors: (.*)\)', line)[1])
    assert details.parent == tmp_path
    assert 'Traceback' in details.read_text()

    make_room()
    done = train(folder, verse_file, tmp_path, 2)
    assert done.returncode == 0, done.stderr
    assert 'Continuing' not in done.stderr


def test_a_run_with_a_checkpoint_is_told_where_it_continues(verse_file, tmp_path):
    assert train(tmp_path, verse_file, tmp_path, 2).returncode == 0
    failed = train(tmp_path, verse_file, tmp_path, 4, preexec_fn=limit_files)
    assert 'the run continues from step 2' in one_line(without_progress(failed), 1)
    done = train(tmp_path, verse_file, tmp_path, 4)
    assert done.returncode == 0, done.stderr
    assert 'from step 2 of 4' in done.stderr
