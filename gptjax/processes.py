"""Several processes that do one command together, on one machine or many.

JAX's runtime joins them (`jax.distributed`); a launcher starts them: a shell, mpirun, Slurm or
Kubernetes. Process 0 alone writes and speaks, except that all of them save checkpoints.
"""

import atexit
import contextlib
import dataclasses
import json
import math
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.experimental import multihost_utils

from gptjax import console
from gptjax.console import say
from gptjax.errors import UserError
from gptjax.interrupts import Interrupts
from gptjax.watchdog import LEAST_STUCK_S, THEN, Watchdog, explain_aborts

JOIN_S = 120  # until all processes are there
PREPARE_S = 3600  # until process 0 has prepared the data
# JAX's own check for signs of life aborts a process: the watchdog has to be first.
HEARTBEAT_S = 100
END_S = 10  # at the end, for the others
ALL_WITH_FLAGS = (
    'start all of them with the same --coordinator and --num_processes, and each with its own '
    '--process_id'
)

_failed: list[Exception] = []


@dataclasses.dataclass(frozen=True)
class Place:
    """Where this process stands among the others."""

    coordinator: str  # HOST:PORT at which process 0 listens
    processes: int
    process: int  # from 0


def place(coordinator: str, num_processes: str, process_id: str) -> Place:
    """What the flags of these names say; raises UserError if they do not fit together."""
    if not (num_processes.isdecimal() and process_id.isdecimal() and coordinator):
        raise UserError(
            f'--coordinator={coordinator}, --num_processes={num_processes} and '
            f'--process_id={process_id} do not start several processes; give all three, such as '
            '--coordinator=localhost:1234 --num_processes=2 --process_id=0'
        )
    if not re.fullmatch(r'\S+:\d+', coordinator):
        raise UserError(f'--coordinator={coordinator} is not HOST:PORT; try localhost:1234')
    found = Place(coordinator, int(num_processes), int(process_id))
    if found.process >= found.processes:
        raise UserError(
            f'--process_id={process_id} is not below --num_processes={num_processes}; number '
            f'the processes from 0 to {max(found.processes - 1, 0)}'
        )
    return found


def start(place: Place | None) -> None:
    """Joins the other processes, before anything else of JAX is used.

    Args:
      place: of this process; None leaves it to JAX, which asks the launcher.

    Raises:
      UserError: the others do not come.
    """
    given: dict[str, Any] = {}
    if place:
        console.speak_as(place.process)
        given = {
            'coordinator_address': place.coordinator,
            'num_processes': place.processes,
            'process_id': place.process,
        }
    _keep_stdout_for_results()
    lonely = f'the processes did not find each other within {JOIN_S} s; {ALL_WITH_FLAGS}'
    explain_aborts(f'{console.speaker()}{lonely}')
    try:
        jax.distributed.initialize(
            **given, initialization_timeout=JOIN_S, heartbeat_timeout_seconds=HEARTBEAT_S
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(f'the processes cannot be joined ({reason}); {ALL_WITH_FLAGS}') from None
    me = jax.process_index()
    console.speak_as(me)
    explain_aborts(f'process {me}: process 0 cannot be reached any more, {THEN}')
    atexit.register(_wait_for_all)


def _keep_stdout_for_results() -> None:
    """Gloo, which moves data between CPUs, prints each connection to file descriptor 1."""
    results = os.dup(1)
    with open(os.devnull, 'wb') as nothing:
        os.dup2(nothing.fileno(), 1)
    sys.stdout = os.fdopen(results, 'w', encoding='utf-8')


def _wait_for_all() -> None:
    """Process 0 has what the others need to end, so it must not end first."""
    try:
        client().wait_at_barrier('gptjax/end', END_S * 1000)
    except jax.errors.JaxRuntimeError:
        if _failed:  # JAX would wait for minutes, and abort.
            os._exit(1)


def alone() -> bool:
    """Whether there is no other process."""
    return jax.process_count() == 1


def is_main() -> bool:
    """Whether this process writes files and speaks."""
    return jax.process_index() == 0


@contextlib.contextmanager
def main_first(what: str) -> Iterator[None]:
    """Lets process 0 do something first, such as preparing data, and then the others.

    `what` is a name that is used once. If process 0 fails with a UserError, all fail with it.
    """
    if alone():
        yield
        return
    key = f'gptjax/first/{what}'
    if is_main():
        try:
            yield
        except UserError as error:
            client().key_value_set(key, str(error))
            raise
        client().key_value_set(key, '')
        return
    if failure := client().blocking_key_value_get(key, PREPARE_S * 1000):
        raise UserError(failure)
    yield


def require_same(about: Mapping[str, Any]) -> None:
    """Compares what the processes are about to do.

    Args:
      about: name -> value; of the configuration, the code and the data.

    Raises:
      UserError: on all processes, if one of them differs from process 0; it is named.
    """
    if alone():
        return
    key = 'gptjax/about/{}'.format
    client().key_value_set(key(jax.process_index()), json.dumps(about, default=str))
    first, *others = (
        json.loads(client().blocking_key_value_get(key(i), JOIN_S * 1000))
        for i in range(jax.process_count())
    )
    for i, other in enumerate(others, 1):
        for name in sorted(first.keys() | other.keys()):
            if first.get(name) != other.get(name):
                raise UserError(
                    f'process {i} has {name}={other.get(name)}, and process 0 has '
                    f'{first.get(name)}; start all processes with the same command, code and data'
                )


@contextlib.contextmanager
def watched(stuck_s: float = LEAST_STUCK_S) -> Iterator[Interrupts]:
    """Within it, a process that dies or hangs ends the others; gives what says when to stop.

    A process hangs if it gives no sign of life, or has not asked for `stuck_s` seconds whether to
    stop.
    """
    if alone():
        yield Interrupts()
        return
    with Watchdog(
        client(), jax.process_index(), jax.process_count(), least_stuck_s=stuck_s
    ) as watchdog:
        try:
            yield CommonInterrupts(watchdog)
        except Exception as error:
            _failed.append(error)
            if isinstance(error, jax.errors.JaxRuntimeError) or error.__cause__:
                # Of a step or of saving, maybe since another process has ended. The watchdog then
                # ends this one, with a better line.
                watchdog.name_the_missing()
            raise


@contextlib.contextmanager
def watched_without_steps() -> Iterator[None]:
    """As `watched`, for work without steps, which saves nothing: SIGTERM ends a process at once."""
    if not alone():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # JAX's runtime would wait for a step.
    with watched(stuck_s=math.inf):
        yield


class CommonInterrupts(Interrupts):
    """As `Interrupts`, but a signal to any process stops all of them after the same step.

    JAX's runtime tells a SIGTERM to all processes, which agree on a call of the devices that none
    of them has begun.
    """

    signals = (signal.SIGINT,)  # SIGTERM is for JAX's runtime.

    def __init__(self, watchdog: Watchdog) -> None:
        super().__init__()
        self._watchdog = watchdog
        self._own = signal.SIGTERM

    def noticed(self) -> bool:
        """Whether to save and stop; every process asks before each call of the devices."""
        calls = self._watchdog.progressed()
        if multihost_utils.reached_preemption_sync_point(calls):
            say('SIGTERM: all processes save at this step, then leave')
            self.signal = self._own
        return self.signal is not None

    def _note(self, number: signal.Signals) -> None:
        self._own = number
        os.kill(os.getpid(), signal.SIGTERM)


def client() -> Any:
    """The key-value store that all processes share; JAX has no public name for it."""
    from jax._src import distributed

    return distributed.global_state.client
