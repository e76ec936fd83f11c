"""TensorBoard and Weights & Biases get the rows of metrics.jsonl, also after a resume."""

import struct
import sys

import pytest

import gptjax
from gptjax.errors import UserError
from tests.conftest import replace


def train(tiny, workdir, tracker, *steps):
    """Trains in as many processes, as it were."""
    for n in steps:
        run = gptjax.train(replace(tiny, train={'steps': n, 'tracker': tracker}), workdir)
    return run.metrics


@pytest.mark.trackers
def test_tensorboard_has_every_figure_once_after_a_resume(tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    workdir = tmp_path / 'run'
    rows = train(tiny, workdir, 'tensorboard', 3, 6)
    events = EventAccumulator(str(workdir / 'tensorboard')).Reload()
    for name in ('train_loss', 'val_loss', 'elapsed_s'):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert logged == [
            (row['step'], pytest.approx(row[name], rel=1e-6)) for row in rows if name in row
        ]


def records(content):
    """The records of a file of wandb's, which are in the form of LevelDB's logs."""
    place, record = 7, b''  # After the file's own header.
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # Not enough of a block for another header.
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack_from('<IHB', content, place)
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # All of a record, or its end.
            yield record
            record = b''


@pytest.mark.trackers
def test_weights_and_biases_has_them_without_a_network(tiny, tmp_path, monkeypatch):
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    workdir = tmp_path / 'run'
    rows = train(tiny, workdir, 'wandb', 3, 6)
    paths = sorted((workdir / 'wandb').glob('offline-run-*/run-*.wandb'))
    assert len({path.name for path in paths}) == 1  # The same run, in two processes.
    steps = []
    for path in paths:
        for data in records(path.read_bytes()):
            history = Record.FromString(data).history
            figures = {''.join(x.nested_key) or x.key: x.value_json for x in history.item}
            if 'train_loss' in figures:
                steps.append((history.step.num, float(figures['train_loss'])))
    assert steps == [(row['step'], row['train_loss']) for row in rows]


@pytest.mark.parametrize('tracker', ['tensorboard', 'wandb'])
def test_a_tracker_that_is_not_installed_is_named(tiny, tmp_path, monkeypatch, tracker):
    for name in [*sys.modules, 'tensorboard', 'wandb']:
        if name.split('.')[0] in ('tensorboard', 'wandb'):
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r'is not installed; .*pip install -e .*\[trackers\]'):
        train(tiny, tmp_path / 'run', tracker, 3)
