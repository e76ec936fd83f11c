"""What a run shows while it goes, on standard error: a bar where one can be seen, else lines."""

import importlib.util
import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gptjax.console import say
from gptjax.training.metrics import Row

PLAIN_EVERY_S = 15.0


class RunProgress:
    """A context in which the rows of a run are shown as they come."""

    def __init__(self, first_step: int, steps: int) -> None:
        self._steps = steps
        self._said = time.monotonic()
        self._bar: Progress | None = None
        console = Console(stderr=True)
        in_notebook = console.is_jupyter and importlib.util.find_spec('ipywidgets')
        if sys.stderr.isatty() or in_notebook:
            self._bar = Progress(
                TextColumn('training'),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn('{task.fields[summary]}'),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task('', total=steps, completed=first_step, summary='')

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def append(self, row: Row) -> None:
        """Shows a row of metrics; without a terminal, only evaluations and one row now and then."""
        summary = f'loss {row["train_loss"]:.3f}'
        speed = ''
        if 'step_ms' in row:  # The first step of a process is not timed: it compiles.
            left_s = (self._steps - row['step']) * row['step_ms'] / 1e3
            summary += f'  {row["tokens_per_s"]:,.0f} tokens/s'
            speed = f'  {row["step_ms"]:.1f} ms  {_minutes(left_s)} left'
        if self._bar:
            self._bar.update(self._task, completed=row['step'], summary=summary)
        evaluated = 'val_loss' in row
        if evaluated or (not self._bar and time.monotonic() - self._said > PLAIN_EVERY_S):
            self._said = time.monotonic()
            val = f'  val {row["val_loss"]:.3f}' if evaluated else ''
            self.line(f'step {row["step"]:>6}/{self._steps}  {summary}{val}{speed}')

    def line(self, text: str) -> None:
        """A line above the bar, if there is one."""
        self._bar.console.print(text, highlight=False) if self._bar else say(text)


def _minutes(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'
