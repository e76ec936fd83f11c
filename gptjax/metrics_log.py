"""metrics.jsonl: the rows of a run, one JSON object a line."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gptjax.files import write_atomically
from gptjax.training.metrics import Row


class MetricsLog(contextlib.AbstractContextManager):
    """The file, appended as the run goes."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Continues the file after `first_step`: later rows, of a run that was cut, are dropped."""
        rows = [row for row in read_metrics(path) if row['step'] <= first_step]
        self.elapsed_s: float = rows[-1]['elapsed_s'] if rows else 0.0  # of the run so far
        write_atomically(path, ''.join(map(_line, rows)).encode())
        self._file = open(path, 'a', encoding='utf-8', buffering=1)  # noqa: SIM115

    def append(self, row: Row) -> None:
        """Adds a row; a number that is not finite is left out, since JSON has none."""
        row = {k: v for k, v in row.items() if not isinstance(v, float) or math.isfinite(v)}
        self._file.write(_line(row))

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _line(row: Row) -> str:
    return json.dumps(row) + '\n'


def read_metrics(path: Path) -> list[Row]:
    """The rows of a metrics file; what is none, as a line that a kill cut short, is left out."""
    return list(iterate_metrics(path))


def iterate_metrics(path: Path) -> Iterator[Row]:
    """The rows of `read_metrics`, one at a time: a file of a million is not held in memory."""
    with contextlib.suppress(FileNotFoundError), open(path, 'rb') as file:
        last = -1
        for line in file:
            with contextlib.suppress(ValueError, AttributeError, RecursionError):
                items = json.loads(line.decode('utf-8', 'replace')).items()
                row = {name: value for name, value in items if _is_number(value)}
                if 'elapsed_s' in row and isinstance(step := row.get('step'), int) and step > last:
                    last = step
                    yield row


def _is_number(value: Any) -> bool:
    # Finite, and far from what arithmetic makes infinite.
    return type(value) in (int, float) and -1e100 < value < 1e100
