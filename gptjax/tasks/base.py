"""Defaults that most tasks share."""

import abc
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import jax
import numpy as np
from jax import Array

from gptjax.config import Config
from gptjax.config.schema import flatten
from gptjax.errors import UserError
from gptjax.models.linear import matmul_dtype, reduced
from gptjax.parallel.mesh import Layout
from gptjax.report.diagnosis import diagnose
from gptjax.tasks.curves import plot_losses
from gptjax.text.tokenizers import Tokenizer
from gptjax.training import steps
from gptjax.training.learner import Learner
from gptjax.training.losses import Sums
from gptjax.training.metrics import Row
from gptjax.training.optim import Optimizer, make_optimizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def fingerprint(
    config: Config, beginnings: tuple[str, ...], sha256: str, tokenizers: Mapping[str, Tokenizer]
) -> dict[str, Any]:
    """The knobs whose dotted names begin like that, and hashes of the text and of tokenizers."""
    found = {name: value for name, value in flatten(config) if name.startswith(beginnings)}
    found['train.average above 0'] = config.train.average > 0
    for name, tokenizer in tokenizers.items():
        vocabulary = hashlib.sha256(tokenizer.to_json().encode()).hexdigest()[:12]
        found[name] = f'{tokenizer.kind} ({tokenizer.vocab_size}, {vocabulary})'
    # Several texts have several hashes, with '+' between them.
    return found | {'text': '+'.join(part[:12] for part in sha256.split('+'))}


def abstract_params(task: Learner) -> dict:
    """The shapes and types of a task's parameters, without computing anything."""
    return jax.eval_shape(task.init_state, steps.run_key(0)).params


def count(tree: Any) -> int:
    """Numbers in all arrays of a tree."""
    return sum(x.size for x in jax.tree.leaves(tree))


def in_words(n_params: int) -> str:
    """As '10.7M parameters'."""
    return f'{n_params / 1e6:.1f}M parameters' if n_params >= 1e5 else f'{n_params:,} parameters'


def own_rows() -> dict[str, int]:
    """Which rows of a batch this process has, as arguments of what makes batches."""
    return {'process': jax.process_index(), 'processes': jax.process_count()}


class BaseTask:
    """Members of `gptjax.tasks.protocols.Task` with their usual answers."""

    config: Config

    def pretrained(self, layout: Layout) -> dict:
        """No pretrained parameters: training starts from scratch."""
        del layout
        return {}

    def with_text(self, path: Path) -> Self:
        """Raises UserError: the task is evaluated on its own text alone."""
        raise UserError(
            f'data.path={path} is not the text of this run, and task={self.config.task} '
            'can be evaluated on no other; leave it out'
        )

    def prompts(self, given: Sequence[str]) -> tuple[str, ...]:
        """Those that are not empty; without any, the empty one: the model begins a text."""
        return tuple(filter(None, given)) or ('',)

    def heading(self, prompt: str, *, number: int, count: int, given: bool) -> str:
        """The prompt, which the text continues; of several texts also the number."""
        del given
        return prompt if count == 1 else f'--- {number} of {count} ---\n{prompt}'

    def passages(self, prompt: str, text: str) -> list[tuple[str, str]]:
        """One paragraph, since the text continues its prompt."""
        return [(prompt, text)]

    def verdict(self, rows: list[Row]) -> str:
        """Over- or underfitting, by the curves."""
        return diagnose(rows, comparable=not self.config.train.average)

    def plot(self, rows: list[Row], title: str) -> 'Figure':
        """Training and validation loss, with the verdict."""
        return plot_losses(rows, title, self.verdict(rows))

    def count_params(self: Learner) -> int:
        """Numbers in the model."""
        return count(abstract_params(self))


class LossTask(BaseTask, abc.ABC):
    """A task that lowers one loss."""

    @abc.abstractmethod
    def loss(self, params: dict, batch: steps.Batch, key: Array | None = None) -> Sums:
        """(sum of losses, number of terms) of a batch; a key means training."""

    def dropout(self, key: Array | None) -> dict[str, Any]:
        """The arguments that a model needs for dropout; without a key there is none."""
        drops = key is not None and self.config.model.dropout > 0
        return {'train': drops, 'rngs': {'dropout': key} if drops else None}

    def factors(self, variables: dict, key: Array | None) -> dict:
        """What a model is applied to: in training, with a key, matrices in train.matmul_dtype."""
        return variables if key is None else reduced(variables, matmul_dtype(self.config))

    def measure(
        self, params: dict, layout: Layout, batches: Iterable[steps.Batch]
    ) -> tuple[float, float]:
        """(sum of losses, number of terms) of all processes' batches, without dropout."""
        sums = [layout.wait(self.eval_step(params, layout.put(batch))) for batch in batches]
        total, terms = np.array(jax.device_get(sums), np.float64).sum(0).tolist()
        return total, terms

    @functools.cached_property
    def train_step(self) -> steps.TrainStep:
        """(state, batch) -> (state, metrics), pure."""
        accumulate = self.config.train.accumulate
        return steps.make_train_step(self.loss, self.optimizer, accumulate, draws=self.draws)

    @property
    def draws(self) -> bool:
        """Whether `loss` uses its key: with dropout, unless a task says more."""
        return self.config.model.dropout > 0

    @functools.cached_property
    def optimizer(self) -> Optimizer:
        """The configured rule and its schedule."""
        return make_optimizer(self.config.train)

    @functools.cached_property
    def eval_step(self) -> Callable[[dict, steps.Batch], Sums]:
        """(params, batch) -> (sum of losses, their number), jitted; without dropout."""
        return jax.jit(self.loss)
