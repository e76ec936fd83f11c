"""Benchmarks in turns: each side is a process that waits until it is asked to do something.

The parent writes a job (what both sides work on) and asks with one JSON object a line on standard
input; a worker answers likewise on standard output. A worker that is not asked uses no processor.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from gptjax.config import Config, from_json, to_json
from gptjax.errors import UserError
from gptjax.text import batches
from gptjax.text.token_files import open_split

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Job:
    """What both sides work on: the same model, weights, batches and learning rates."""

    config: Config
    vocab_size: int
    folder: Path  # holds weights.npz
    tokens_path: Path
    tokens_dtype: str
    learning_rates: tuple[float, ...]  # of the first steps, for the side that has no schedule
    mode: str = ''  # for PyTorch: eager or compile, or these with _bfloat16
    exact: bool = False  # float32 without shortcuts, to compare results

    def weights(self) -> Arrays:
        """Our parameters by their dotted names."""
        with np.load(self.folder / 'weights.npz') as arrays:
            return dict(arrays)

    def tokens(self) -> np.ndarray:
        """The training tokens, mapped into memory."""
        return open_split(self.tokens_path, self.tokens_dtype, 0, windows=True).tokens

    def batch(self, tokens: np.ndarray, step: int) -> batches.Batch:
        """The host arrays of a step."""
        train = self.config.train
        return batches.random_windows(
            tokens,
            seed=train.seed,
            step=step,
            batch_size=train.batch_size,
            block_size=self.config.model.block_size,
        )

    def prompt(self) -> np.ndarray:
        """The token ids that are continued."""
        return self.tokens()[: self.config.bench.prompt_tokens].astype(np.int32)

    @property
    def exported(self) -> Path:
        """The folder of the model in Hugging Face's form."""
        return self.folder / 'exported'

    def to_json(self) -> str:
        """One line; `from_json` is its inverse."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return json.dumps({**fields, 'config': to_json(self.config)}, default=str)

    @classmethod
    def from_json(cls, line: str) -> 'Job':
        """See `to_json`."""
        fields = json.loads(line)
        fields['config'] = from_json(fields['config'])
        for name in ('folder', 'tokens_path'):
            fields[name] = Path(fields[name])
        fields['learning_rates'] = tuple(fields['learning_rates'])
        return cls(**fields)


def serve(make_subject: Callable[[Job], Any]) -> None:
    """The worker's side: makes the subject of the job in the first line, then calls its methods."""
    # What a library prints must not disturb the answers.
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    subject = make_subject(Job.from_json(sys.stdin.readline()))
    for line in sys.stdin:
        method, arguments = json.loads(line)
        answer = getattr(subject, method)(**arguments)
        if isinstance(answer, dict) and any(isinstance(v, np.ndarray) for v in answer.values()):
            with tempfile.NamedTemporaryFile(suffix='.npz', delete=False) as file:
                np.savez(file, **answer)
            answer = {'npz': file.name}
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """The parent's side: a context in which the worker's methods can be called."""

    def __init__(self, module: str, job: Job, env: dict[str, str] | None = None) -> None:
        """Starts `python -m module` on a job."""
        self.module = module
        process = subprocess.Popen(
            [sys.executable, '-m', module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        assert process.stdin and process.stdout
        self._process, self._asks, self._answers = process, process.stdin, process.stdout
        self._send(job.to_json())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # It died before it read all of it.
            self._asks.close()
        self._answers.close()
        self._process.wait()

    def call(self, method: str, **arguments: int | bool) -> Any:
        """The answer of a method of the worker's subject.

        Raises:
          UserError: the worker died; it said why on standard error.
        """
        self._send(json.dumps([method, arguments]))
        line = self._answers.readline()
        if not line:
            raise UserError(
                f'{self.module} ended with status {self._process.wait()} in {method}(); '
                'its own words are above'
            )
        answer = json.loads(line)
        if isinstance(answer, dict) and 'npz' in answer:
            path = Path(answer['npz'])
            with np.load(path) as arrays:
                answer = dict(arrays)
            path.unlink()
        return answer

    def _send(self, line: str) -> None:
        try:
            self._asks.write(line + '\n')
            self._asks.flush()
        except BrokenPipeError:
            pass  # `call` finds the end of the answers and says so.
