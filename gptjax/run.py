"""A run: a work directory as an object. Every mode but training begins with it."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from gptjax import processes, run_files, tasks
from gptjax.config import Config, MeshConfig, SampleConfig
from gptjax.errors import UserError, nearest
from gptjax.generation.requests import Piece, whole_texts
from gptjax.metrics_log import read_metrics
from gptjax.parallel.mesh import Layout, rounded_up
from gptjax.tasks.protocols import Report, Task
from gptjax.training.metrics import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gptjax.explain.inspection import Forward, Score
    from gptjax.explain.page import Explained

MOST_EXPLAINED = 8  # checkpoints whose predictions an explanation shows


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A trained or imported model, loaded from its work directory."""

    workdir: Path
    config: Config
    task: Task
    params: dict
    step: int
    layout: Layout  # of the parameters, and of evaluation

    @classmethod
    def open(
        cls, workdir: str | Path, *, checkpoint: str = 'best', asked: Config | None = None
    ) -> 'Run':
        """Loads a run from what is in its work directory alone.

        The checkpoint is the 'best' by validation loss, or the 'latest'. With `asked`, the sampling
        sections of that configuration are used instead of the run's, and its mesh; without, all
        devices that pay. Raises UserError if there is no trained model, a file is damaged, a knob
        has no effect or the mesh does not fit the devices.
        """
        workdir = Path(workdir)
        if not run_files.is_trained(workdir):
            raise UserError(f'there is no trained model in {workdir}; train one first')
        config = run_files.load_config(workdir)
        config = dataclasses.replace(config, mesh=MeshConfig())  # That of training may be larger.
        task = tasks.load(config, workdir, asked)
        mesh = task.config.mesh
        layout = Layout(mesh, rounded_up(jax.device_count(), mesh))  # Evaluations have many tokens.
        step, params = run_files.restore(task, workdir, checkpoint, layout)
        return cls(workdir, task.config, task, jax.block_until_ready(params), step, layout)

    def generate(self, prompt: str | Sequence[str] = '', **sampling: Any) -> str | list[str]:
        """Continues a prompt (or translates it); the prompt is not part of what comes back.

        `sampling` has knobs of `sample`, such as max_new_tokens=200, temperature=0.8 or seed=1.
        Returns a list for several prompts or with num_samples, rows of a prompt side by side.
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        texts = whole_texts(self.stream(prompts, **sampling))
        return texts[0] if isinstance(prompt, str) and len(texts) == 1 else texts

    def stream(self, prompts: Sequence[str], **sampling: Any) -> Iterator[Piece]:
        """As `generate`, piece by piece: `Piece.id` is the number of the row."""
        config = self.sampling(sampling)
        return self.task.stream(self.params, self.task.prompts(prompts), config)

    def evaluate(self, text: str | Path | None = None) -> Report:
        """All figures of the whole validation split, or of another text in a file."""
        task = self.task if text is None else self.task.with_text(Path(text))
        with processes.watched_without_steps():
            return task.examine(self.params, self.layout)

    def forward(self, text: str, *, attention: bool = False) -> 'Forward':
        """The logits after each token of a text, and with `attention` all attention weights."""
        return self._language_model().forward(self.params, text, attention=attention)

    def score(self, text: str) -> 'Score':
        """The log-probability of each token of a text."""
        return self._language_model().score(self.params, text)

    def explain(self, *texts: str, live: bool = True, **sampling: Any) -> 'Explained':
        """A page about the model's predictions, token by token: `to_html()`, `to_json()`.

        `texts` is a prompt (or a source to translate), perhaps with its continuation (translation);
        without any it is one of the task's own. `sampling` as in `generate`. With `live` the page
        has the model in it, if it is a small language model, and explains other texts too.
        """
        if not hasattr(self.task, 'explain'):
            raise UserError(f'there is no explanation of task={self.config.task}')
        if len(texts) > 2 or not all(isinstance(text, str) for text in texts):
            raise UserError(
                'an explanation is of a prompt, or of a prompt and its continuation, not of '
                f'{texts}; give one or two strings'
            )
        config = self.sampling(sampling)
        title = f'{self.config.name}, step {self.step}'
        given = texts or self.task.prompts(())[:1]
        explained = self.task.explain(self.params, given, config, title)
        if hasattr(self.task, 'across') and len(run_files.checkpoints(self.workdir).saved()) > 1:
            explained = self.task.across(explained, self.checkpoints(MOST_EXPLAINED))
        return explained if live else dataclasses.replace(explained, live=None)

    @property
    def metrics(self) -> list[Row]:
        """The rows of metrics.jsonl."""
        return read_metrics(self.workdir / 'metrics.jsonl')

    def plot(self) -> 'Figure':
        """The curves of the run, as a figure that notebooks show."""
        return self.task.plot(self.metrics, title=f'{self.config.name} in {self.workdir}')

    def checkpoints(self, most: int) -> Iterator[tuple[int, dict]]:
        """(step, parameters) of `most` checkpoints, evenly spread, and of the one that is loaded.

        Fewer if there are fewer; damaged ones are named and left out.
        """
        steps = sorted(run_files.checkpoints(self.workdir).saved())
        if len(steps) > most:
            steps = [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]
        for step in sorted({*steps, self.step}):
            if step == self.step:
                yield step, self.params
            else:
                with contextlib.suppress(UserError):
                    yield step, run_files.restore_step(self.task, self.workdir, step, self.layout)

    def sampling(self, knobs: dict[str, Any]) -> SampleConfig:
        """The run's sampling with other values of some knobs, which the task must read."""
        names = [field.name for field in dataclasses.fields(SampleConfig)]
        if unknown := [name for name in knobs if name not in names]:
            raise UserError(f'sample.{unknown[0]} is unknown; {nearest(unknown[0], names)}')
        config = dataclasses.replace(self.config.sample, **knobs)
        # Only what is asked for now: older versions kept knobs without an effect in their runs.
        asked = Config(task=self.config.task, sample=SampleConfig(**knobs))
        tasks.refuse_unread(asked, self.task.reads, ('sample',))
        return config

    def _language_model(self) -> Any:
        if not hasattr(self.task, 'forward'):
            raise UserError(
                f'task={self.config.task} has no forward pass over a single text; '
                'use a run with task=language_model'
            )
        return self.task
