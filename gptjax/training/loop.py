"""The training loop, on the host: it moves batches, metrics and checkpoints, and knows no model."""

import dataclasses
import math
import signal
import time
from pathlib import Path

import jax
import numpy as np

from gptjax.errors import UserError
from gptjax.parallel.mesh import Layout
from gptjax.training.checkpoint import Checkpoints
from gptjax.training.interrupts import Interrupts
from gptjax.training.metrics import MetricsLog, Row, model_flops_utilization
from gptjax.training.progress import RunProgress
from gptjax.training.steps import Metrics, TrainState, make_call, run_key
from gptjax.training.task import Batch, Task


class DivergedError(UserError):
    """A loss or a norm is not finite."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How `train` ended."""

    state: TrainState
    stopped_by: signal.Signals | None  # the state is saved


def abstract_state(task: Task, layout: Layout) -> TrainState:
    """The shapes, types and shardings of a task's state, without computing anything."""
    state = jax.eval_shape(task.init_state, run_key(0))
    return jax.tree.map(lambda x, s: x.update(sharding=s), state, layout.of(state))


def initial_state(task: Task, layout: Layout) -> TrainState:
    """The state before the first step, made on the devices in its final layout."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(task, layout))
    make = jax.jit(task.init_state, out_shardings=shardings)
    state = make(run_key(task.config.train.seed))
    start = {
        name: jax.tree.map(jax.device_put, arrays, shardings.params[name])
        for name, arrays in task.pretrained(layout).items()
    }
    return state.replace(params=state.params | start)


def train(
    task: Task, layout: Layout, state: TrainState, checkpoints: Checkpoints, metrics_path: Path
) -> Outcome:
    """Trains from a state to the configured number of steps, or until a signal.

    Args:
      task: what is learnt.
      layout: where it is computed.
      state: fresh or restored; its buffers are donated.
      checkpoints: where states are saved: every `save_every` steps, at the end and at a signal.
      metrics_path: the metrics.jsonl to write or continue.

    Raises:
      UserError: a loss is not finite (nothing of that is saved), or saving failed.
    """
    config = task.config.train
    steps = Steps(task, layout, state)
    first = done = int(state.step)
    log = MetricsLog(metrics_path, first)
    meter = Meter(task, layout, log.rows[-1]['elapsed_s'] if log.rows else 0.0)
    saved = first
    with log, Interrupts() as interrupts, RunProgress(first, config.steps) as progress:
        try:
            while done < config.steps and not interrupts.signal:
                stops = (config.log_every, config.eval_every, config.save_every)
                wanted = min(config.steps - done, *(every - done % every for every in stops))
                state, metrics, n = steps(state, done, wanted)
                if meter.is_due(config.log_every):
                    # The device has its next steps by now, so it does not wait for this.
                    _record(meter.read(), log, progress)
                done += n
                meter.add(done, n, metrics)
                saving = done == config.steps or done % config.save_every == 0
                if saving or done % config.eval_every == 0:
                    row = meter.read() | task.evaluate(state.params, layout)
                    _require_finite(done, {'val_loss': row['val_loss']})
                    _record(row, log, progress)
                    if saving:
                        checkpoints.save(state, row['val_loss'])
                        saved = done
                    meter.restart()
            if saved != done:
                # After a signal time is short: this one gets no loss, and is never the best.
                _record(meter.read(), log, progress)
                checkpoints.save(state, math.inf)
        finally:
            checkpoints.close()
    return Outcome(state, interrupts.signal)


class Steps:
    """The compiled train step, several at a call, and the batches for the next call on their way.

    The jitted function is one for the whole run, and what --mode=bench times.
    """

    def __init__(self, task: Task, layout: Layout, state: TrainState):
        """The arguments are those of `train`; compiles at the first call."""
        self._task, self._layout = task, layout
        self._most = task.config.train.steps_per_call
        shardings = jax.tree.map(lambda x: x.sharding, state)
        self._call = jax.jit(
            make_call(task.train_step), donate_argnums=0, out_shardings=(shardings, None)
        )
        self._ready: tuple[int, Batch] | None = None

    def __call__(self, state: TrainState, done: int, wanted: int):
        """Does some optimizer steps.

        Args:
          state: after `done` steps; its buffers are donated.
          done: the step of the first batch.
          wanted: how many steps to do at most.

        Returns:
          (state, metrics, n): n is how many were done, the first n of the metrics are theirs.
        """
        n = min(wanted, self._most)
        step, batches = self._ready or (None, None)
        if step != done:
            batches = self._batches(done)
        state, metrics = self._call(state, batches, n)
        # While the devices compute: the host would otherwise do this while they wait.
        self._ready = done + n, self._batches(done + n)
        return state, self._layout.wait(metrics), n

    def _batches(self, step: int) -> Batch:
        batches = [self._task.train_batch(step + i) for i in range(self._most)]
        return self._layout.put(jax.tree.map(lambda *rows: np.stack(rows), *batches), axis=1)


def _record(row: Row, log: MetricsLog, progress: RunProgress) -> None:
    if row:
        log.append(row)
        progress.show(row)


class Meter:
    """Collects the metrics of steps on the device and turns them into rows of metrics.jsonl."""

    def __init__(self, task: Task, layout: Layout, elapsed_s: float):
        """Starts the clock of a run that has already taken `elapsed_s`."""
        self._task, self._devices = task, layout.mesh.devices
        self._finished_when_added = layout.must_wait
        self._flops_per_token = task.flops_per_token()
        self._began = time.perf_counter() - elapsed_s
        self._pending: list[tuple[int, int, Metrics]] = []
        self._added_at = self._began
        self._timed_from: float | None = None  # None until the first step is compiled
        self._timed_steps = 0

    def add(self, step: int, n: int, metrics: Metrics) -> None:
        """Notes the stacked metrics of the n steps up to `step`, which may still be running."""
        self._added_at = time.perf_counter()
        self._pending.append((step, n, metrics))
        self._timed_steps += n
        if self._timed_from is None:
            jax.block_until_ready(metrics)
            self.restart()

    def is_due(self, every: int) -> bool:
        """Whether the last step added is one to log, and was not read yet."""
        return bool(self._pending) and self._pending[-1][0] % every == 0

    def restart(self) -> None:
        """Starts timing anew: what came before was no training."""
        self._timed_from, self._timed_steps = time.perf_counter(), 0

    def read(self) -> Row:
        """Waits for the steps added since the last call and makes one row of them, if any.

        Raises:
          DivergedError: a value is not finite.
        """
        rows = [
            (last - n + 1 + i, jax.tree.map(lambda x, i=i: x[i], metrics))
            for last, n, metrics in jax.device_get(self._pending)
            for i in range(n)
        ]
        self._pending = []
        if not rows:
            return {}
        # Where steps are waited for, the next ones are over by now: they are of the next row.
        now = self._added_at if self._finished_when_added else time.perf_counter()
        for step, metrics in rows:
            _require_finite(step, metrics)
        step, last = rows[-1]
        row = {
            'step': step,
            'elapsed_s': round(now - self._began, 3),
            'train_loss': float(np.mean([metrics['loss'] for _, metrics in rows])),
            **{name: float(value) for name, value in last.items() if name != 'loss'},
        }
        if self._timed_steps:
            step_s = (now - self._timed_from) / self._timed_steps
            tokens_per_s = self._task.tokens_per_step() / step_s
            row |= {'step_ms': round(step_s * 1e3, 3), 'tokens_per_s': round(tokens_per_s, 1)}
            kind, count = self._devices.flat[0].device_kind, self._devices.size
            mfu = model_flops_utilization(self._flops_per_token * tokens_per_s, kind, count)
            row |= {'mfu': round(mfu, 4)} if mfu is not None else {}
        self._timed_from, self._timed_steps = now, 0
        return row


def _require_finite(step: int, values: dict) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise DivergedError(
                f'{name} is {float(value)} at step {step}, and no checkpoint has been saved with '
                'it; usual causes: train.learning_rate too high, train.grad_clip off, no '
                'train.warmup_steps. Change one and train again, from the last checkpoint if any'
            )
