"""Measuring a run: steps on the devices -> rows of numbers, for whoever tracks them."""

import contextlib
import math
import time
from typing import Any, Protocol

import jax
import numpy as np

from gptjax.chips import model_flops_utilization
from gptjax.errors import UserError
from gptjax.parallel.mesh import Layout
from gptjax.training.steps import Metrics

Row = dict[str, Any]


class DivergedError(UserError):
    """A loss or a norm is not finite."""


class Tracker(contextlib.AbstractContextManager, Protocol):
    """A context that receives the rows of a run as they come."""

    def append(self, row: Row) -> None: ...


class Meter:
    """Collects the metrics of steps on the device and turns them into rows."""

    def __init__(
        self, tokens_per_step: int, flops_per_token: float, layout: Layout, elapsed_s: float = 0.0
    ) -> None:
        """Starts the clock after the `elapsed_s` seconds of before; FLOPs are of both passes."""
        self._tokens_per_step, self._flops_per_token = tokens_per_step, flops_per_token
        self._layout = layout
        self._made = time.perf_counter()
        self._began = self._made - elapsed_s
        self._pending: list[tuple[int, int, Metrics]] = []
        self._added_at = self._began
        self._timed_from: float | None = None  # None until the first step is compiled
        self._timed_steps = 0
        self._extra: Row = {}

    def add(self, step: int, n: int, metrics: Metrics) -> None:
        """Notes the stacked metrics of the n steps up to `step`, which may still be running."""
        self._added_at = time.perf_counter()
        self._pending.append((step, n, metrics))
        self._timed_steps += n
        if self._timed_from is None:
            jax.block_until_ready(metrics)
            self.note('compile_s', self._made)
            self.restart()

    def is_due(self, every: int) -> bool:
        """Whether the last step added is one to log, and was not read yet."""
        return bool(self._pending) and self._pending[-1][0] % every == 0

    def note(self, name: str, began: float) -> None:
        """The next row tells how long something took that began at a time.perf_counter()."""
        self._extra[name] = round(time.perf_counter() - began, 3)

    def restart(self) -> None:
        """Starts timing anew: what came before was no training."""
        self._timed_from, self._timed_steps = time.perf_counter(), 0

    def read(self) -> Row:
        """Waits for the steps added since the last call and makes one row of them, if any.

        Raises DivergedError if a value is not finite.
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
        now = self._added_at if self._layout.must_wait else time.perf_counter()
        for step, metrics in rows:
            require_finite(step, metrics)
        step, last = rows[-1]
        row = {
            'step': step,
            'elapsed_s': round(now - self._began, 3),
            'train_loss': float(np.mean([metrics['loss'] for _, metrics in rows])),
            **{name: float(value) for name, value in last.items() if name != 'loss'},
            **self._extra,
        }
        self._extra = {}
        if self._timed_steps and self._timed_from is not None:
            step_s = (now - self._timed_from) / self._timed_steps
            tokens_per_s = self._tokens_per_step / step_s
            row |= {'step_ms': round(step_s * 1e3, 3), 'tokens_per_s': round(tokens_per_s, 1)}
            mesh, flops_per_s = self._layout.mesh, self._flops_per_token * tokens_per_s
            mfu = model_flops_utilization(flops_per_s, mesh.devices[0, 0, 0].device_kind, mesh.size)
            row |= {'mfu': round(mfu, 4)} if mfu is not None else {}
        self._timed_from, self._timed_steps = now, 0
        return row


def require_finite(step: int, values: dict) -> None:
    """Raises DivergedError if a value of a step is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise DivergedError(
                f'{name} is {float(value)} at step {step}, and no checkpoint has been saved with '
                'it; usual causes: train.learning_rate too high, train.grad_clip off, no '
                'train.warmup_steps. Change one and train again, from the last checkpoint if any'
            )
