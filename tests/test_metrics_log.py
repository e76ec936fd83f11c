"""metrics.jsonl is exact across interruptions."""

import json
import math

import pytest

from gptjax.metrics_log import MetricsLog, read_metrics


def test_rows_after_the_resumed_step_are_dropped(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    with MetricsLog(path, 0) as log:
        for step in (2, 4, 6):
            log.append({'step': step, 'elapsed_s': 1.0, 'train_loss': 1.0})
    with MetricsLog(path, 4) as log:
        log.append({'step': 6, 'elapsed_s': 1.0, 'train_loss': 2.0})
    assert [(row['step'], row['train_loss']) for row in read_metrics(path)] == [
        (2, 1.0),
        (4, 1.0),
        (6, 2.0),
    ]


def test_a_line_cut_by_a_kill_is_ignored(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    row = {'step': 1, 'elapsed_s': 2.5}
    path.write_text(json.dumps(row) + '\n{"step": 2, "train_')
    assert read_metrics(path) == [row]


@pytest.mark.parametrize('line', [b'garbage', b'[]', b'3', b'{}', b'{"step": "x"}', b'\xff\xfe'])
def test_a_line_that_is_no_row_costs_no_other(tmp_path, line):
    path = tmp_path / 'metrics.jsonl'
    rows = [{'step': step, 'elapsed_s': 1.0} for step in (1, 2)]
    path.write_bytes(line + b'\n' + '\n'.join(map(json.dumps, rows)).encode() + b'\n')
    assert read_metrics(path) == rows


def test_what_json_cannot_say_is_left_out(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    with MetricsLog(path, 0) as log:
        log.append({'step': 1, 'val_loss': math.inf, 'train_loss': math.nan})
    assert json.loads(path.read_text()) == {'step': 1}
