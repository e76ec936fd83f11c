"""Several processes do what one would, to a common end, and none waits for ever."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import gptjax
from gptjax import processes
from gptjax.errors import UserError
from gptjax.metrics_log import read_metrics
from gptjax.modes.train import SAMPLE_TOKENS
from gptjax.watchdog import Watchdog
from tests.conftest import ROOT, one_line, run_main, unpack_golden

FLAGS = [
    *('--config=configs/char.py:small', '--config.train.optimizer=adamw'),
    *('--config.model.n_layer=1', '--config.model.n_embd=32', '--config.model.block_size=16'),
    *('--config.model.ngram=1', '--config.train.batch_size=8', '--config.train.steps_per_call=1'),
    *('--config.train.matmul_dtype=float32', '--config.train.log_every=1'),
    *('--config.train.eval_every=6', '--config.train.save_every=6', '--config.train.steps=12'),
]
ENDLESS = [f'--config.train.{name}=1000000' for name in ('steps', 'eval_every', 'save_every')]


def heed_interrupts():
    """Takes back what a shell does to the jobs in its background, which ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Group:
    """Processes of one command; `own_flags` are for all but process 0."""

    def __init__(self, workdir, count, flags, *, devices=1, own_flags=()):
        with socket.socket() as free:
            free.bind(('localhost', 0))
            port = free.getsockname()[1]
        self.workdir = workdir
        self.errors = [workdir.with_name(f'{workdir.name}-{i}') for i in range(count)]
        place = [f'--workdir={workdir}', *flags]
        place += [f'--coordinator=localhost:{port}', f'--num_processes={count}']
        self.members = [
            subprocess.Popen(
                [sys.executable, 'main.py', *place, f'--process_id={i}', *(own_flags if i else ())],
                cwd=ROOT,
                stdout=error.with_suffix('.out').open('w'),
                stderr=error.open('w'),
                env={**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices)},
                preexec_fn=heed_interrupts,
            )
            for i, error in enumerate(self.errors)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for member in self.members:
            member.kill()
            member.wait()

    def said(self, i):
        return self.errors[i].read_text()

    def wait(self, seconds=240):
        """The exit statuses."""
        return [member.wait(seconds) for member in self.members]

    def wait_for_steps(self):
        end = time.monotonic() + 240
        while not re.search(r'step +\d+/', self.said(0)):
            assert time.monotonic() < end and self.members[0].poll() is None, self.said(0)
            time.sleep(0.1)


def training(workdir, text, count, *, flags=(), **how):
    """Processes that train a work directory, if no flag says another mode."""
    cache = workdir.with_name('cache')
    data = [f'--config.data.path={text}', f'--config.data.cache_dir={cache}']
    return Group(workdir, count, [*data, *FLAGS, *flags], **how)


def losses(workdir):
    rows = read_metrics(workdir / 'metrics.jsonl')
    return {
        (row['step'], name): row[name]
        for row in rows
        for name in ('train_loss', 'val_loss')
        if name in row
    }


@pytest.fixture(scope='module')
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp('text') / 'text.txt'
    path.write_text('The quick brown fox jumps over the lazy dog; then it sleeps.\n' * 100)
    return path


@pytest.fixture(scope='module')
def alone(tmp_path_factory, text):
    """A run of one process with one device."""
    folder = tmp_path_factory.mktemp('alone')
    place = [f'--workdir={folder / "run"}', f'--config.data.path={text}']
    done = run_main(*FLAGS, *place, f'--config.data.cache_dir={folder / "cache"}')
    assert done.returncode == 0, done.stderr
    return folder / 'run'


@pytest.mark.slow
@pytest.mark.parametrize(
    ('count', 'devices', 'mesh'),
    [
        (2, 1, ()),
        (4, 1, ('--config.mesh.fsdp=2',)),
        (2, 4, ('--config.mesh.fsdp=2', '--config.mesh.tensor=2')),
    ],
)
def test_processes_have_the_losses_of_one(tmp_path, text, alone, count, devices, mesh):
    with training(tmp_path / 'run', text, count, devices=devices, flags=mesh) as group:
        assert group.wait() == [0] * count, [group.said(i) for i in range(count)]
    expected, found = losses(alone), losses(tmp_path / 'run')
    assert len(found) == 14
    assert found == pytest.approx(expected, rel=1e-5)
    assert 'Validation, whole split, step 12' in group.said(0)
    assert len((tmp_path / 'run-0.out').read_text()) > SAMPLE_TOKENS  # of the sample
    assert 'For a report, run in one process:' in group.said(0)
    # XLA's notes about how it splits small arrays are not ours.
    said = [re.sub(r'(?m)^W\d{4} .*\n', '', group.said(i)) for i in range(1, count)]
    assert said == [''] * (count - 1)
    # Its checkpoint is restored by one process, and by two.
    one, many = gptjax.load(alone).evaluate().figures, gptjax.load(tmp_path / 'run').evaluate()
    assert many.figures == pytest.approx(one, rel=1e-5)
    if count == 4:
        flags = ['--config.train.steps=14']
        with training(tmp_path / 'run', text, 2, flags=flags) as pair:
            assert pair.wait() == [0, 0], pair.said(0)
        assert 'from step 12 of 14' in pair.said(0)


@pytest.mark.slow
def test_two_processes_evaluate_each_token_once(text, alone):
    flags = ['--mode=eval', '--json']
    with training(alone, text, 2, flags=flags) as group:
        assert group.wait() == [0, 0], group.said(0)
    figures, nothing = (error.with_suffix('.out').read_text() for error in group.errors)
    expected = gptjax.load(alone).evaluate().figures
    found = json.loads(figures)  # Nothing else is on standard output.
    assert found == pytest.approx(expected | {'step': 12}, rel=1e-5)
    assert nothing == ''


WRITING = {
    'char': ['--config=configs/char.py', '--prompt=ROMEO:', '--prompt=O', '--prompt=And'],
    'translation': ['--config=configs/translate.py', '--prompt=abc', '--prompt=b'],
    'gan': ['--config=configs/gan.py', '--config.sample.num_samples=3'],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'more', 'mesh'),
    [
        ('char', [], ['--config.mesh.fsdp=2', '--config.mesh.tensor=2']),
        ('char', ['--config.sample.num_samples=2'], []),
        ('translation', ['--config.sample.beam=3'], ['--config.mesh.fsdp=-1']),
        ('gan', [], ['--config.mesh.fsdp=2']),
    ],
)
def test_two_processes_write_the_texts_of_one(tmp_path, name, more, mesh):
    flags = [*WRITING[name], *more, '--mode=sample', '--json', '--config.sample.max_new_tokens=80']
    workdir = unpack_golden(tmp_path, name) / name
    expected = run_main(*flags, f'--workdir={workdir}')
    with Group(workdir, 2, [*flags, *mesh], devices=2) as group:
        assert group.wait() == [0, 0], [group.said(0), group.said(1)]
    texts, nothing = (error.with_suffix('.out').read_text() for error in group.errors)
    assert (json.loads(texts), nothing) == (json.loads(expected.stdout), '')
    assert group.said(1) == ''


@pytest.mark.slow
def test_processes_that_would_write_different_texts_are_told(tmp_path):
    flags, other = [*WRITING['char'], '--mode=sample'], ['--config.sample.seed=2']
    with Group(unpack_golden(tmp_path, 'char') / 'char', 2, flags, own_flags=other) as group:
        assert group.wait() == [1, 1]
    assert 'process 1 has sample.seed=2, and process 0 has 1337' in group.said(0)


@pytest.mark.slow
@pytest.mark.parametrize('sent', [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_all_that_write_texts(tmp_path, sent):
    """There is nothing to save."""
    flags = [*WRITING['char'], '--mode=sample', '--config.sample.max_new_tokens=2000000']
    with Group(unpack_golden(tmp_path, 'char') / 'char', 2, flags) as group:
        end = time.monotonic() + 120
        while not group.errors[0].with_suffix('.out').stat().st_size:
            assert time.monotonic() < end, group.said(0)
            time.sleep(0.2)
        group.members[1].send_signal(sent)
        assert all(status != 0 for status in group.wait(30))
    assert 'process 0: process 1 ' in group.said(0)


@pytest.mark.slow
def test_standard_input_is_no_file_of_prompts_for_several(tmp_path):
    flags = ['--config=configs/char.py', '--mode=sample', '--prompt_file=-']
    with Group(unpack_golden(tmp_path, 'char') / 'char', 2, flags) as group:
        assert group.wait() == [1, 1]
    for i in range(2):
        assert '--prompt_file=- is read by one of several processes alone; name' in group.said(i)


@pytest.mark.mpi
def test_open_mpi_starts_processes_that_find_each_other(tmp_path, text, alone):
    place = [f'--workdir={tmp_path / "run"}', f'--config.data.path={text}']
    place += [f'--config.data.cache_dir={tmp_path / "cache"}']
    done = subprocess.run(
        ['scripts/launch/mpirun.sh', *FLAGS, *place],
        cwd=ROOT,
        env={**os.environ, 'PROCESSES': '2', 'JAX_NUM_CPU_DEVICES': '1'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'split over 2 devices' in done.stderr
    assert losses(tmp_path / 'run') == pytest.approx(losses(alone), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(('sent', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_one_process_saves_one_step_of_all(tmp_path, text, sent, status):
    with training(tmp_path / 'run', text, 2, flags=ENDLESS) as group:
        group.wait_for_steps()
        group.members[1].send_signal(sent)
        assert group.wait(60) == [143, status], [group.said(0), group.said(1)]
    (saved,) = (int(path.name) for path in (tmp_path / 'run' / 'checkpoints').iterdir())
    assert f'saved at step {saved}' in group.said(0)
    with training(tmp_path / 'run', text, 2, flags=[f'--config.train.steps={saved + 2}']) as again:
        assert again.wait() == [0, 0], again.said(0)
    assert f'from step {saved} of {saved + 2}' in again.said(0)


@pytest.mark.slow
@pytest.mark.parametrize('sent', [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize('which', [0, 1])
def test_a_process_that_is_gone_or_stopped_ends_the_others(tmp_path, text, sent, which):
    with training(tmp_path / 'run', text, 2, flags=ENDLESS) as group:
        group.wait_for_steps()
        group.members[which].send_signal(sent)
        began = time.monotonic()
        other = 1 - which
        assert group.members[other].wait(30) != 0
        print(f'{sent.name} of process {which}: noticed in {time.monotonic() - began:.1f} s')
    said = group.said(other)
    assert f'process {other}: process {which} ' in said
    assert 'start all' in said and 'continues from its last checkpoint' in said


@pytest.mark.slow
def test_another_configuration_is_named(tmp_path, text):
    with training(tmp_path / 'run', text, 2, own_flags=['--config.train.seed=5']) as group:
        assert group.wait() == [1, 1]
    for i in range(2):
        assert 'process 1 has train.seed=5, and process 0 has 1337' in group.said(i)
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_a_work_directory_that_is_not_shared_is_told(tmp_path, text):
    with training(tmp_path / 'run', text, 2, own_flags=[f'--workdir={tmp_path}/other']) as group:
        assert all(status != 0 for status in group.wait(120))
    said = group.said(1)
    assert f'{tmp_path}/other is not there; use a work directory that all processes share' in said
    assert 'process 0: process 1 ' in group.said(0)


@pytest.mark.slow
def test_a_mistake_is_told_by_all_and_nobody_waits(tmp_path):
    with training(tmp_path / 'run', tmp_path / 'no-such-file', 2) as group:
        assert group.wait() == [1, 1]
    for i in range(2):
        assert 'no-such-file' in group.said(i)


@pytest.mark.parametrize(
    ('flags', 'status', 'message'),
    [
        (['--num_processes=2'], 2, 'give all three'),
        (['--coordinator=here', '--num_processes=2', '--process_id=0'], 2, 'is not HOST:PORT'),
        (['--coordinator=h:1', '--num_processes=2', '--process_id=2'], 2, 'from 0 to 1'),
        (
            ['--mode=serve', '--coordinator=h:1', '--num_processes=2', '--process_id=0'],
            *(2, '--mode=serve is for one process'),
        ),
    ],
)
def test_flags_that_do_not_fit_are_refused(tmp_path, flags, status, message):
    done = run_main('--config=configs/char.py', f'--workdir={tmp_path}/run', *flags)
    assert message in one_line(done, status)


def test_one_process_needs_no_others():
    assert processes.alone() and processes.is_main()
    with processes.main_first('nothing'):
        pass
    processes.require_same({'seed': 1})
    with processes.watched() as interrupts:
        assert not interrupts.noticed()


class Store:
    """Stands for the key-value store of JAX's runtime."""

    def __init__(self, fails_after=10**9):
        self.values, self.left = {}, fails_after

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        self.left -= 1
        if self.left < 0:
            raise ConnectionError
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.values.items() if key.startswith(folder)]


class LeftError(Exception):
    pass


def left(monkeypatch, store, *, silent_s=0.3, least_stuck_s=10.0, during=None):
    """What a watchdog of process 0 of two says when it ends the process; '' if it does not."""
    found, ended = [], threading.Event()
    monkeypatch.setattr('gptjax.watchdog.BEAT_S', 0.02)
    monkeypatch.setattr('gptjax.watchdog.faulthandler.dump_traceback', lambda *_, **__: None)

    def leave(self, process, why):
        found.append(f'{process} {why}')
        ended.set()
        raise LeftError

    monkeypatch.setattr(Watchdog, '_leave', leave)
    monkeypatch.setattr(threading, 'excepthook', lambda args: None)
    with Watchdog(store, 0, 2, silent_s=silent_s, least_stuck_s=least_stuck_s) as watchdog:
        end = time.monotonic() + 1.0
        while time.monotonic() < end and not ended.is_set():
            if during:
                during(watchdog)
            time.sleep(0.02)
    return found[0] if found else ''


def test_the_watchdog_names_the_process_that_is_silent(monkeypatch):
    assert left(monkeypatch, Store()).startswith('1 has given no sign of life')


def test_the_watchdog_names_process_0_where_its_store_is_gone(monkeypatch):
    assert left(monkeypatch, Store(fails_after=2)) == '0 cannot be reached any more'


def test_the_watchdog_leaves_a_run_alone_that_goes_on(monkeypatch):
    store = Store()

    def goes_on(watchdog):
        watchdog.progressed()
        store.values['gptjax/alive/1'] = f'{time.monotonic()} 1'

    assert left(monkeypatch, store, least_stuck_s=0.3, during=goes_on) == ''


def test_the_watchdog_names_the_last_one_where_nothing_goes_on(monkeypatch):
    store = Store()

    def lives(watchdog):
        store.values['gptjax/alive/1'] = f'{time.monotonic()} 7'

    said = left(monkeypatch, store, least_stuck_s=0.4, during=lives)
    assert said.startswith('0 is the last one after')


def test_a_process_that_is_done_is_not_missed(monkeypatch):
    store = Store()
    store.values['gptjax/alive/1'] = 'done'
    assert left(monkeypatch, store) == ''


def test_more_than_one_place_is_needed():
    with pytest.raises(UserError, match='number the processes from 0 to 0'):
        processes.place('h:1', '1', '1')
    assert processes.place('h:1', '2', '1') == processes.Place('h:1', 2, 1)


def test_an_error_of_another_process_is_told(monkeypatch):
    store = Store()
    store.values['gptjax/alive/1'] = 'failed'
    assert left(monkeypatch, store) == '1 ended with an error'


LONELY = """
import sys
from gptjax import processes
processes.JOIN_S = 2
processes.start(processes.Place('localhost:{port}', 2, {process}))
"""


@pytest.mark.slow
@pytest.mark.parametrize('process', [0, 1])
def test_a_process_whose_others_do_not_come_says_so(process):
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    script = LONELY.format(port=port, process=process)
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('process 1: ' * process + 'the processes did not find each other')
    assert last.endswith('and each with its own --process_id')
