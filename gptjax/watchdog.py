"""Ends a process that waits for another one which has died, was stopped or hangs.

A collective operation waits for ever for a process that does not come (jax issue 38503). Each
process therefore writes a sign of life to the key-value store of JAX's runtime, and reads those of
the others.
"""

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

BEAT_S = 1.0  # between two signs of life
SILENT_S = 15.0  # without one: the process, or its machine, is gone or stopped
LEAST_STUCK_S = 300.0  # without progress of any process, or ten times the longest step so far
KEY = 'gptjax/alive'
THEN = (
    'so all stop; find out what happened to it, and start all again: a training continues from its '
    'last checkpoint'
)


class Watchdog:
    """A context with two threads: one tells and reads signs of life, one checks them."""

    def __init__(
        self,
        store: Any,
        process: int,
        processes: int,
        *,
        silent_s: float = SILENT_S,
        least_stuck_s: float = LEAST_STUCK_S,
    ) -> None:
        """`store` is the client of JAX's runtime; the others are seconds, as above."""
        self._store, self._process = store, process
        self._silent_s, self._stuck_s = silent_s, least_stuck_s
        self._calls, self._moved = 0, time.monotonic()
        self._lock, self._ended = threading.Lock(), threading.Event()
        now = time.monotonic()
        self._seen = dict.fromkeys(range(processes), ('', now))  # sign, since when it is the same
        self._asked = now  # when the store answered last

    def __enter__(self) -> 'Watchdog':
        for target in (self._tell, self._check):
            threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        with contextlib.suppress(Exception):  # The store may be gone.
            self._set('failed' if kind else 'done')

    def progressed(self) -> int:
        """Notes that this process goes on to its next call; returns how many there were."""
        now = time.monotonic()
        self._stuck_s = max(self._stuck_s, 10 * (now - self._moved) * (self._calls > 0))
        self._calls, self._moved = self._calls + 1, now
        return self._calls

    def name_the_missing(self) -> None:
        """Gives the threads time to find a missing process, and to end this one."""
        time.sleep(self._silent_s + 3 * BEAT_S)

    def _set(self, sign: str) -> None:
        self._store.key_value_set(f'{KEY}/{self._process}', sign, allow_overwrite=True)

    def _tell(self) -> None:
        beats = 0
        while not self._ended.wait(BEAT_S):
            beats += 1
            try:
                self._set(f'{beats} {self._calls}')
                found = self._store.key_value_dir_get(KEY)
            except Exception:  # The store is that of process 0.
                if not self._ended.is_set():
                    self._leave(0, 'cannot be reached any more')
                return
            now = time.monotonic()
            with self._lock:
                self._asked = now
                for key, sign in found:
                    process = int(key.rpartition('/')[2])
                    if self._seen[process][0] != sign:
                        self._seen[process] = sign, now

    def _check(self) -> None:
        while not self._ended.wait(BEAT_S):
            now = time.monotonic()
            silence = f'has given no sign of life for {self._silent_s:.0f} s'
            with self._lock:
                asked, seen = self._asked, dict(self._seen)
            if now - asked > self._silent_s:
                self._leave(0, silence)
            for process, (sign, since) in seen.items():
                if sign == 'failed':
                    self._leave(process, 'ended with an error')
                if sign != 'done' and now - since > self._silent_s:
                    self._leave(process, silence)
            if now - self._moved > self._stuck_s:
                calls = {p: int(sign.split()[1]) for p, (sign, _) in seen.items() if ' ' in sign}
                last = min(calls, key=lambda process: calls[process], default=self._process)
                self._leave(last, f'is the last one after {self._stuck_s:.0f} s without progress')

    def _leave(self, process: int, why: str) -> NoReturn:
        """Ends this process at once: its main thread may wait for the other one for ever."""
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        print(
            f'process {self._process}: process {process} {why}, {THEN}', file=sys.stderr, flush=True
        )
        os._exit(1)


def explain_aborts(line: str) -> None:
    """Replaces the line for the user where JAX's runtime aborts this process.

    It aborts where a process does not come or process 0 ends, and offers no callback. C calls the
    handler, since Python would run its own after the end.
    """
    if not _handlers:

        @ctypes.CFUNCTYPE(None, ctypes.c_int)
        def leave(number: int) -> None:
            os.write(2, _last_line)
            os._exit(1)

        _handlers.append(leave)  # C has only its address.
        ctypes.CDLL(None).signal(int(signal.SIGABRT), leave)
    global _last_line
    _last_line = f'{line}\n'.encode()


_handlers: list[Any] = []
_last_line = b''
