"""The training loop, on the host: it moves batches, metrics and checkpoints, and knows no model."""

import contextlib
import dataclasses
import functools
import math
import signal
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.devices import copies_pay
from gptjax.interrupts import Interrupts
from gptjax.parallel.mesh import Layout
from gptjax.training.checkpoint import Checkpoints
from gptjax.training.learner import Batch, Learner
from gptjax.training.metrics import Meter, Row, Tracker, require_finite
from gptjax.training.steps import Metrics, TrainState, make_multi_step, offloaded, run_key


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How `train` ended."""

    state: TrainState
    stopped_by: signal.Signals | None  # the state is saved


def layout_of(task: Learner) -> Layout:
    """Where a task is trained: the configured mesh, or the one that is fastest here."""
    config, micro_batches = task.config, task.config.train.accumulate
    copies = copies_pay(task.tokens_per_step() // micro_batches)
    return Layout(config.mesh, config.train.batch_size // micro_batches, copies=copies)


def abstract_state(task: Learner, layout: Layout) -> TrainState:
    """The shapes, types and shardings of a task's state, without computing anything."""
    state = jax.eval_shape(task.init_state, run_key(0))
    return jax.tree.map(lambda x, s: x.update(sharding=s), state, layout.of(state))


def initial_state(task: Learner, layout: Layout) -> TrainState:
    """The state before the first step, made on the devices in its final layout."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(task, layout))
    key = run_key(task.config.train.seed)
    # Two programs: the random bits are gone before there is any memory for the optimizer.
    params = jax.jit(lambda key: task.init_state(key).params, out_shardings=shardings.params)(key)

    def add_others(key: jax.Array, params: dict) -> TrainState:
        state = task.init_state(key)
        mean = {name: jax.tree.map(jnp.copy, params[name]) for name in state.mean}
        return state.replace(params=params, mean=mean)

    make = jax.jit(add_others, donate_argnums=1, out_shardings=shardings)
    state = make(key, layout.wait(params))
    own = functools.partial(jax.device_put, may_alias=False)  # The first step donates them.
    start = {
        name: jax.tree.map(own, arrays, shardings.params[name])
        for name, arrays in task.pretrained(layout).items()
    }
    return state.replace(params=state.params | start)


def train(
    task: Learner,
    layout: Layout,
    state: TrainState,
    *,
    checkpoints: Checkpoints,
    trackers: Sequence[Tracker],
    elapsed_s: float = 0.0,
    interrupts: Interrupts | None = None,
) -> Outcome:
    """Trains from a state to the configured number of steps, or until a signal.

    Args:
      task: what is learnt.
      layout: where it is computed.
      state: fresh or restored; its buffers are donated.
      checkpoints: where states are saved: every `save_every` steps, at the end and at a signal.
      trackers: what receives the rows of metrics.
      elapsed_s: the seconds that the run took before.
      interrupts: says when to stop; by default at a signal to this process.

    Raises:
      UserError: a loss is not finite (nothing of that is saved), or saving failed.
    """
    config = task.config.train
    runner = StepRunner(task, layout, state)
    first = done = int(state.step)
    meter = Meter(task.tokens_per_step(), task.flops_per_token(), layout, elapsed_s)
    saved = first
    with contextlib.ExitStack() as opened, interrupts or Interrupts() as interrupts:
        try:
            for tracker in trackers:
                opened.enter_context(tracker)
            while done < config.steps and not interrupts.noticed():
                stops = (config.log_every, config.eval_every, config.save_every)
                wanted = min(config.steps - done, *(every - done % every for every in stops))
                state, metrics, n = runner.run(state, done, wanted)
                if meter.is_due(config.log_every):
                    # The device has its next steps by now, so it does not wait for this.
                    _record(meter.read(), trackers)
                done += n
                meter.add(done, n, metrics)
                saving = done == config.steps or done % config.save_every == 0
                if saving or done % config.eval_every == 0:
                    row, began = meter.read(), time.perf_counter()
                    row |= task.validate(state.used, layout)
                    row['eval_s'] = round(time.perf_counter() - began, 3)
                    require_finite(done, {'val_loss': row['val_loss']})
                    _record(row, trackers)
                    if saving:
                        began, saved = time.perf_counter(), done
                        checkpoints.save(state, row['val_loss'])
                        meter.note('save_s', began)
                    meter.restart()
            if saved != done:
                # After a signal time is short: this one gets no loss, and is never the best.
                _record(meter.read(), trackers)
                checkpoints.save(state, math.inf)
        finally:
            checkpoints.close()
    return Outcome(state, interrupts.signal)


def multi_step_on(layout: Layout, task: Learner) -> Callable[..., tuple[TrainState, Metrics]]:
    """As `make_multi_step`, of a task's step and for states of this layout; to be jitted."""
    step = offloaded(task.train_step) if layout.offload else task.train_step
    return layout.known_to(make_multi_step(step))


class StepRunner:
    """The compiled train step, several at a call, and the batches for the next call on their way.

    The jitted function is one for the whole run, and what --mode=bench times.
    """

    def __init__(self, task: Learner, layout: Layout, state: TrainState) -> None:
        """The arguments are those of `train`; compiles at the first call."""
        self._task, self._layout = task, layout
        self._most = task.config.train.steps_per_call
        out = jax.tree.map(lambda x: x.sharding, state), layout.whole
        multi_step = multi_step_on(layout, task)
        self._call = jax.jit(multi_step, donate_argnums=0, out_shardings=out)
        self._ready: tuple[int, Batch] | None = None

    def run(self, state: TrainState, first: int, limit: int) -> tuple[TrainState, Metrics, int]:
        """Does some optimizer steps; on a CPU it returns when they are done.

        Args:
          state: after `first` steps; its buffers are donated.
          first: the step of the first batch.
          limit: how many steps to do at most.

        Returns:
          (state, metrics, n): n is how many were done, the first n of the metrics are theirs.
        """
        n = min(limit, self._most)
        step, batches = self._ready or (None, None)
        if step != first:
            batches = self._batches(first)
        state, metrics = self._call(state, batches, n)
        # While the devices compute: the host would otherwise do this while they wait.
        self._ready = first + n, self._batches(first + n)
        return state, self._layout.wait(metrics), n

    def _batches(self, step: int) -> Batch:
        batches = [self._task.train_batch(step + i) for i in range(self._most)]
        return self._layout.put(jax.tree.map(lambda *rows: np.stack(rows), *batches), axis=1)


def _record(row: Row, trackers: Sequence[Tracker]) -> None:
    for tracker in trackers if row else ():
        tracker.append(row)
