"""What a work directory tells of its training: curves, starts, checkpoints. Nothing is written."""

import dataclasses
import math
from array import array
from pathlib import Path

import numpy as np

from gptjax import run_files, starts
from gptjax.config import Config
from gptjax.starts import Start
from gptjax.training.metrics import iterate_metrics


@dataclasses.dataclass(frozen=True)
class Curve:
    """One figure of the rows that have it."""

    steps: np.ndarray  # (n,)
    values: np.ndarray  # (n,) float64

    def __len__(self) -> int:
        return len(self.steps)

    def lowest(self) -> tuple[int, float]:
        """(step, value) of the lowest one."""
        i = int(np.argmin(self.values))
        return int(self.steps[i]), float(self.values[i])


@dataclasses.dataclass(frozen=True)
class Record:
    """A run, as far as it has come."""

    workdir: Path
    config: Config
    curves: dict[str, Curve]  # by the names in metrics.jsonl
    starts: list[Start]
    saved: list[int]  # complete checkpoints, newest first; whether they are sound is not checked
    damaged: list[int]  # checkpoints that were set aside when the run was continued

    @property
    def last_step(self) -> int:
        """Of the rows; 0 without any."""
        elapsed = self.curves.get('elapsed_s')
        return int(elapsed.steps[-1]) if elapsed else 0

    @property
    def elapsed_s(self) -> float:
        """Seconds that training took, without the time between a stop and the next start."""
        elapsed = self.curves.get('elapsed_s')
        return float(elapsed.values[-1]) if elapsed else 0.0

    @property
    def best(self) -> tuple[int, float] | None:
        """(step, loss) of the lowest validation loss that was logged."""
        val = self.curves.get('val_loss')
        return val.lowest() if val else None

    def shares(self) -> dict[str, float]:
        """What training did with its time, as shares of it that sum to 1; empty without rows.

        Compiling counts with the first call of each process. What is left after steps, evaluation
        and compiling is saving and all else. Versions before 0.3 did not log evaluation apart.
        """
        if self.elapsed_s <= 0:
            return {}
        seconds = {'steps': self._step_seconds()}
        for name in ('eval', 'compile'):
            if curve := self.curves.get(f'{name}_s'):
                seconds[name] = float(np.sum(curve.values))
        # The evaluation after the last row is in no row's elapsed time.
        whole = max(self.elapsed_s, sum(seconds.values()))
        shares = {name: part / whole for name, part in seconds.items()}
        return shares | {'rest': max(0.0, 1 - sum(shares.values()))}

    def _step_seconds(self) -> float:
        timed = self.curves.get('step_ms')
        if not timed:
            return 0.0
        # A row is about the steps since the row before it, whichever that was.
        steps = self.curves['elapsed_s'].steps
        before = np.concatenate([[0], steps])[np.searchsorted(steps, timed.steps)]
        return float(np.sum((timed.steps - before) * timed.values)) / 1e3


def read(workdir: Path) -> Record:
    """Reads a work directory, also during training and after a crash.

    Raises UserError if there is no run, or its configuration is damaged.
    """
    config = run_files.load_config(workdir)
    checkpoints = run_files.checkpoints(workdir)
    aside = checkpoints.folder.with_name(f'{checkpoints.folder.name}-damaged')
    damaged = {path.name.split('-')[0] for path in aside.glob('*')}
    return Record(
        workdir,
        config,
        read_curves(workdir / 'metrics.jsonl'),
        starts.read(workdir),
        checkpoints.saved(),
        sorted(int(name) for name in damaged if name.isdecimal()),
    )


def read_curves(path: Path) -> dict[str, Curve]:
    """All figures of a metrics file; what is no finite number is left out."""
    columns: dict[str, tuple[array, array]] = {}
    for row in iterate_metrics(path):
        for name, value in row.items():
            if isinstance(value, int | float) and math.isfinite(value):
                steps, values = columns.setdefault(name, (array('q'), array('d')))
                steps.append(int(row['step']))
                values.append(value)
    return {name: Curve(np.array(s), np.array(v)) for name, (s, v) in columns.items()}
