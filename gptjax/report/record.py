"""What a work directory tells of its training: curves, starts, checkpoints. Nothing is written."""

import contextlib
import dataclasses
from array import array
from pathlib import Path

import numpy as np

from gptjax import run_files, starts
from gptjax.config import Config
from gptjax.files import DamagedError, read_object
from gptjax.metrics_log import iterate_metrics
from gptjax.starts import Start
from gptjax.training.metrics import Row


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
    evaluations: list[Row]  # the rows with a validation loss
    data_sha256: str  # of the texts; empty where data.json is missing
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

        Compiling counts with the first call of each process, saving as far as training waited for
        it. Of a run of version 0.1.0 only the steps are told apart from the rest.
        """
        if self.elapsed_s <= 0:
            return {}
        seconds = {'steps': self._step_seconds()}
        for name in ('eval', 'save', 'compile'):
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
    curves, evaluations = read_curves(workdir / 'metrics.jsonl')
    damaged = {path.name.split('-')[0] for path in aside.glob('*')}
    return Record(
        workdir,
        config,
        curves,
        starts.read(workdir),
        evaluations,
        _data_sha256(workdir),
        sorted(int(name) for name in damaged if name.isdecimal()),
    )


def read_curves(path: Path) -> tuple[dict[str, Curve], list[Row]]:
    """(all figures of a metrics file, its rows with a validation loss), in one pass."""
    columns: dict[str, tuple[array, array]] = {}
    evaluations = []
    for row in iterate_metrics(path):
        evaluations += [row] if 'val_loss' in row else []
        for name, value in row.items():
            steps, values = columns.setdefault(name, (array('q'), array('d')))
            steps.append(row['step'])
            values.append(value)
    curves = {name: Curve(np.array(s), np.array(v)) for name, (s, v) in columns.items()}
    return curves, evaluations


def _data_sha256(workdir: Path) -> str:
    with contextlib.suppress(DamagedError):
        return read_object(workdir / 'data.json', sha256=str)['sha256']
    return ''
