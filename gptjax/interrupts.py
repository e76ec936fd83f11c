"""SIGTERM and Ctrl-C as a question that the loop asks, instead of an exception anywhere."""

import os
import signal
import threading

from gptjax.console import say

SHOW_CURSOR = b'\x1b[?25h\n'  # A progress bar hides it.


class Interrupts:
    """A context in which the first SIGINT or SIGTERM is noted, and a second one ends the process.

    Python runs signal handlers between two instructions of the main thread, so not while that
    thread is inside XLA. The interpreter's C handler writes each signal's number to a pipe at
    once, and a thread reads them there. Outside the main thread nothing is changed.
    """

    signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict = {}
        self._again = False

    def __enter__(self) -> 'Interrupts':
        if threading.current_thread() is threading.main_thread():
            read, self._write = os.pipe()
            os.set_blocking(self._write, False)
            self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            for number in self.signals:
                self._before[number] = signal.signal(number, lambda number, frame: None)
            self._watcher = threading.Thread(target=self._watch, args=(read,), daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._write)  # Ends the watcher.
            self._watcher.join()

    def noticed(self) -> bool:
        """Whether to save and stop; the loop asks before each call of the devices."""
        return self.signal is not None

    def _watch(self, read: int) -> None:
        with open(read, 'rb', buffering=0) as pipe:
            while byte := pipe.read(1):
                if byte[0] not in self._before:
                    continue  # Of another handler.
                number = signal.Signals(byte[0])
                if self._again:
                    # All files are written atomically: whatever is unfinished is ignored later.
                    if os.isatty(2):
                        os.write(2, SHOW_CURSOR)
                    os._exit(128 + number)
                self._again = True
                self._note(number)

    def _note(self, number: signal.Signals) -> None:
        self.signal = number
        then = 'saving at the next step, then leaving; once more leaves at once'
        say(f'{number.name}: {then}')
