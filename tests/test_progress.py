"""What a run shows while it goes."""

import io
import sys
import types

from gptjax import progress
from gptjax.console import say
from gptjax.progress import RunProgress

ROW = {'step': 50, 'train_loss': 2.3456, 'step_ms': 20.0, 'tokens_per_s': 12345.6}


def test_plain_lines_have_loss_speed_and_time_left(capsys):
    with RunProgress(0, 4000) as shown:
        shown.append(ROW)  # No line: it is neither an evaluation nor time for one.
        shown.append(ROW | {'val_loss': 2.5})
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err == (
        'step     50/4000  loss 2.346  12,346 tokens/s  val 2.500  20.0 ms  1:19 left\n'
    )


def test_a_row_without_a_time_has_no_speed(capsys):
    with RunProgress(0, 4000) as shown:
        shown.append({'step': 1, 'train_loss': 4.0, 'val_loss': 4.1})
    assert capsys.readouterr().err == 'step      1/4000  loss 4.000  val 4.100\n'


def test_a_terminal_gets_a_bar_with_lines_above(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, 'stderr', terminal)
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '120')
    with RunProgress(0, 100) as bar:
        bar.append(ROW | {'val_loss': 2.5})
    shown = terminal.getvalue()
    assert 'step     50/100' in shown
    assert '50/100' in shown.replace('step     50/100', '')
    assert 'loss 2.346  12,346 tokens/s' in shown


def test_a_notebook_gets_lines_where_it_cannot_show_a_bar(monkeypatch, capsys):
    """Without ipywidgets, rich warns and shows no bar."""
    notebook = types.SimpleNamespace(is_jupyter=True)
    monkeypatch.setattr(progress, 'Console', lambda stderr: notebook)
    monkeypatch.setattr(progress.importlib.util, 'find_spec', lambda name: None)
    with RunProgress(0, 4000) as shown:
        shown.append(ROW | {'val_loss': 2.5})
    assert capsys.readouterr().err.startswith('step     50/4000  loss 2.346')


def test_nobody_has_to_listen(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, 'stderr', Closed())
    say('a line')
