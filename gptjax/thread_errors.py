"""What the threads that write checkpoints report goes to a file, not to standard error."""

import contextlib
import logging
import sys
import tempfile
import threading
import traceback
from pathlib import Path

LOGGERS = ('absl', 'asyncio')


class ThreadErrors:
    """Collects the errors of Orbax's threads (by their loggers) and TensorStore's (unraisable).

    One failed write makes some 40 tracebacks: each array's write fails by itself, and those that
    fail late find the event loop closed. All other errors go where they always go.
    """

    def __init__(self) -> None:
        self.path: Path | None = None  # of the file, once there is something to tell
        self._before = sys.unraisablehook
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begins to collect; of several objects the latest one collects."""
        self._before, sys.unraisablehook = sys.unraisablehook, self._unraisable
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self._log)

    def stop(self) -> None:
        """Ends it. After a failure it should go on: the last threads report late."""
        sys.unraisablehook = self._before
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(self._log)

    def _log(self, record: logging.LogRecord) -> bool:
        late = 'exception was never retrieved' in record.getMessage()  # Of a write in asyncio.
        if record.levelno < logging.ERROR or not (late or 'orbax' in record.pathname):
            return True
        self._write(logging.Formatter('%(asctime)s %(message)s').format(record))
        return False

    def _unraisable(self, error: 'sys.UnraisableHookArgs') -> None:
        if 'Event loop is closed' not in str(error.exc_value):
            return self._before(error)
        self._write(''.join(traceback.format_exception(error.exc_value)))

    def _write(self, text: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # That folder may be full too.
            if not self.path:
                name = tempfile.mkstemp(prefix='gptjax-checkpoint-errors-', suffix='.txt')[1]
                self.path = Path(name)
            with open(self.path, 'a', encoding='utf-8') as file:
                file.write(f'{text}\n')
