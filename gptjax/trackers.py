"""TensorBoard and Weights & Biases: optional trackers of a run, beside its metrics.jsonl."""

import contextlib
import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any

from gptjax import extras
from gptjax.config import Config
from gptjax.training.metrics import Row, Tracker


def make(config: Config, workdir: Path, first_step: int) -> list[Tracker]:
    """The tracker of `train.tracker`, for training from a step on; none with the default.

    Raises UserError if it is not installed.
    """
    kinds: dict[str, Any] = {'tensorboard': TensorBoard, 'wandb': WeightsAndBiases}
    kind = config.train.tracker
    return [] if kind == 'none' else [kinds[kind](config, workdir, first_step)]


class TensorBoard(contextlib.AbstractContextManager):
    """Event files in tensorboard/ of the work directory."""

    def __init__(self, config: Config, workdir: Path, first_step: int) -> None:
        """TensorBoard drops what earlier processes logged after `first_step`."""
        del config
        writer = extras.need('tensorboard.summary.writer.event_file_writer', 'trackers')
        self._event = extras.need('tensorboard.compat.proto.event_pb2', 'trackers').Event
        self._writer = writer.EventFileWriter(str(workdir / 'tensorboard'))
        self._add(first_step + 1, session_log={'status': 1})  # A start, in TensorBoard's protocol.

    def append(self, row: Row) -> None:
        """Adds each figure of a row as a scalar."""
        values = [
            {'tag': name, 'simple_value': value} for name, value in row.items() if name != 'step'
        ]
        self._add(row['step'], summary={'value': values})

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        self._writer.add_event(self._event(wall_time=time.time(), step=step, **content))


class WeightsAndBiases(contextlib.AbstractContextManager):
    """A run of the project gptjax; WANDB_MODE=offline keeps it in wandb/ of the work directory."""

    def __init__(self, config: Config, workdir: Path, first_step: int) -> None:
        """The same work directory is always the same run."""
        del first_step  # The service ignores rows before the last one that it has.
        path = str(workdir.absolute())
        self._run = extras.need('wandb', 'trackers').init(
            project='gptjax',
            name=workdir.name,
            id=hashlib.sha256(path.encode()).hexdigest()[:12],
            resume='allow',
            dir=path,
            config=dataclasses.asdict(config),
        )

    def append(self, row: Row) -> None:
        """Logs a row at its step."""
        figures = dict(row)
        self._run.log(figures, step=figures.pop('step'))

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._run.finish(exit_code=int(kind is not None))
