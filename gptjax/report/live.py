"""report.html while a run is trained."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from gptjax import pages
from gptjax.console import say
from gptjax.files import write_atomically
from gptjax.report import record
from gptjax.report.page import Report
from gptjax.training.metrics import Row

EVERY_S = 30.0
MOST_SHARE = 0.01  # of the training time


class LiveReport(contextlib.AbstractContextManager):
    """Writes the report anew after evaluations, now and then, and when training ends."""

    def __init__(self, workdir: Path, verdict: Callable[[list[Row]], str]) -> None:
        """`verdict` says in words what the rows of a run mean."""
        self._workdir, self._verdict = workdir, verdict
        self._next = time.monotonic() + EVERY_S

    def append(self, row: Row) -> None:
        """Writes the page if this is an evaluation and it is time for a page."""
        if 'val_loss' in row and time.monotonic() > self._next:
            began = time.monotonic()
            self._write()
            now = time.monotonic()
            self._next = now + max(EVERY_S, (now - began) / MOST_SHARE)

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._write(quiet=kind is not None)

    def _write(self, quiet: bool = False) -> None:
        """A page that cannot be written is no reason to stop training; `quiet` says nothing."""
        path = self._workdir / 'report.html'
        try:
            if pages.is_ours(path):
                found = record.read(self._workdir)
                report = Report(found, self._verdict(found.evaluations))
                write_atomically(path, report.to_html().encode('utf-8', 'replace'))
        except Exception as error:  # A full disk, a damaged file: training does not need the page.
            if not quiet:
                reason = ' '.join(str(error).split())
                say(f'{path} could not be written ({reason}); training goes on')
