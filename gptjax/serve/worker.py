"""The thread that generates: all models, all requests, a chunk at a time."""

import asyncio
import queue
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from gptjax.generation.requests import Piece
from gptjax.serve.fields import Completion
from gptjax.serve.models import Failure, Prompt, Served

Event = tuple[int, Piece | Exception]  # the number of a text in its job, and what is new


class Job:
    """What the event loop waits for: the pieces of the texts of one request."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.numbers: list[int] = []  # of the worker's thread: texts that go on, by their source


class Worker:
    """Runs in a thread of its own; other threads use `start` and `cancel`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._sinks: dict[tuple[Served, int], tuple[Job, int]] = {}
        self._served: list[Served] = []
        # One text at a time, since the logits of a long one are large.
        self.scoring = ThreadPoolExecutor(1, 'scoring')
        # The loop parses and writes for milliseconds, in which this thread would wait to go on.
        sys.setswitchinterval(0.0005)
        threading.Thread(target=self._run, name='generation', daemon=True).start()

    def do(self, action: Callable[[], None]) -> 'asyncio.Future[None]':
        """Runs something in the thread, between two chunks; done or failed when that has ended."""
        done = self._loop.create_future()

        def run() -> None:
            try:
                action()
            except Exception as error:
                self._loop.call_soon_threadsafe(_fail, done, error)
            else:
                self._loop.call_soon_threadsafe(_finish, done)

        self._inbox.put(run)
        return done

    def start(self, job: Job, prompts: Iterable[Prompt], completion: Completion) -> None:
        """Queues all texts of a request."""

        def submit() -> None:
            served = job.served
            if served not in self._served:
                self._served.append(served)
            try:
                for prompt in prompts:
                    for number in served.submit(prompt, completion):
                        self._sinks[served, number] = job, len(job.numbers)
                        job.numbers.append(number)
            except Exception as error:
                self._forget(job)
                self._send([(job, (0, error))])

        self._inbox.put(submit)

    def cancel(self, job: Job) -> None:
        """Ends what is left of a request; its slots are free after the chunk that runs now."""
        self._inbox.put(lambda: self._forget(job))

    def _forget(self, job: Job) -> None:
        for number in job.numbers:
            if self._sinks.pop((job.served, number), None):
                job.served.source.cancel(number)

    def _run(self) -> None:
        while True:
            busy = [served for served in self._served if served.source.busy]
            self._served = busy  # One that is idle and not asked for any more can be freed.
            while not busy or not self._inbox.empty():
                self._inbox.get()()
                busy = [served for served in self._served if served.source.busy]
            for served in busy:
                self._step(served)

    def _step(self, served: Served) -> None:
        try:
            pieces = served.source.step()
        except Exception as error:  # Whatever it is, the other models go on.
            jobs = {job for (owner, _), (job, _) in self._sinks.items() if owner is served}
            for job in jobs:
                self._forget(job)
            self._send([(job, (0, error)) for job in jobs])
            return
        news: list[tuple[Job, Event]] = []
        for piece in pieces:
            if found := self._sinks.get((served, piece.id)):
                event = piece.error if isinstance(piece, Failure) else piece
                news.append((found[0], (found[1], event)))
                if isinstance(piece, Failure) or piece.finish:
                    del self._sinks[served, piece.id]
        self._send(news)

    def _send(self, news: list[tuple[Job, Event]]) -> None:
        def deliver() -> None:
            for job, event in news:
                job.events.put_nowait(event)

        if news:
            self._loop.call_soon_threadsafe(deliver)


def _finish(done: 'asyncio.Future[None]') -> None:
    if not done.done():
        done.set_result(None)


def _fail(done: 'asyncio.Future[None]', error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
