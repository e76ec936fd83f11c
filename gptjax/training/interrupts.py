"""SIGTERM and Ctrl-C as a question that the loop asks, instead of an exception anywhere."""

import signal


class Interrupts:
    """A context in which the first SIGINT or SIGTERM is only noted; a second one acts as usual.

    Orbax's own check for pre-emption needs `jax.distributed`, so one process needs this.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._before: dict = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        del frame
        self.signal = signal.Signals(number)
        self.__exit__()
