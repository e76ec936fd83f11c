"""Which models a server has: each run at its best checkpoint, and at others when asked for."""

import asyncio
import dataclasses
from collections import OrderedDict
from collections.abc import Sequence

from gptjax import run_files
from gptjax.console import say
from gptjax.run import Run
from gptjax.serve.language_model import ServedLanguageModel
from gptjax.serve.models import Served
from gptjax.serve.streams import ServedStream
from gptjax.serve.worker import Worker
from gptjax.tasks.language_model.task import LanguageModel

MOST_LOADED = 4  # checkpoints besides the best ones


class Registry:
    """The models by name: `char` is the checkpoint asked for, `char@500` that of step 500."""

    def __init__(self, runs: Sequence[Run], worker: Worker, slots: int) -> None:
        """Names two runs of one name apart; loads nothing yet."""
        self._worker, self._slots = worker, slots
        self._best: dict[str, Served] = {}
        for run in runs:
            name = run.workdir.resolve().name
            while name in self._best:
                name += '+'
            self._best[name] = self._serve(name, run)
        self._others: OrderedDict[str, Served] = OrderedDict()
        self._lock = asyncio.Lock()
        self._refused: dict[str, int] = {}  # the last step that was tried, by name

    def _serve(self, name: str, run: Run) -> Served:
        if isinstance(run.task, LanguageModel):
            return ServedLanguageModel(name, run, run.task, self._slots)
        return ServedStream(name, run)

    @property
    def loaded(self) -> list[Served]:
        """All models that are in memory."""
        return [*self._best.values(), *self._others.values()]

    @property
    def bases(self) -> dict[str, Served]:
        """Each run's best checkpoint, by its name."""
        return self._best

    @property
    def default(self) -> str:
        """The first run's name."""
        return next(iter(self._best))

    async def warm_up(self) -> None:
        """Compiles what the models need."""
        for served in self._best.values():
            await self._worker.do(served.warm_up)

    def names(self) -> list[str]:
        """All names, without loading anything."""
        found = []
        for name, served in self._best.items():
            steps = sorted(run_files.checkpoints(served.run.workdir).saved())
            found += [name, *(f'{name}@{step}' for step in steps)]
        return found

    async def get(self, name: str) -> Served | None:
        """The model of that name, which is loaded if need be; None if there is none."""
        if not name or name in self._best:
            return self._best[name or self.default]
        async with self._lock:
            if name in self._others:
                self._others.move_to_end(name)
                return self._others[name]
            base, _, step = name.rpartition('@')
            if name not in self.names():
                return None
            found = await asyncio.to_thread(self._at, base, int(step), name)
            self._others[name] = found
            if len(self._others) > MOST_LOADED:
                self._others.popitem(last=False)
            return found

    def _at(self, base: str, step: int, name: str) -> Served:
        run = self._best[base].run
        if step != run.step:
            params = run_files.restore_step(run.task, run.workdir, step, run.layout)
            run = dataclasses.replace(run, step=step, params=params)
        return self._serve(name, run)

    async def refresh(self) -> None:
        """Takes better checkpoints, or later ones if `latest` was asked for, as they are written.

        Texts that have begun go on with the old one.
        """
        for name, served in self._best.items():
            try:
                checkpoints = run_files.checkpoints(served.run.workdir)
                latest = served.run.config.sample.checkpoint == 'latest'
                steps = checkpoints.saved() if latest else checkpoints.best_first()
                if steps and steps[0] not in (served.run.step, self._refused.get(name)):
                    self._refused[name] = steps[0]
                    self._best[name] = await asyncio.to_thread(self._at, name, steps[0], name)
            except Exception as error:  # Not whole, damaged or gone: the one in use goes on.
                say(f'{name}: step {self._refused.get(name)} cannot be taken ({error})')
