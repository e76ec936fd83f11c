"""The shapes of a training run, without its data and without computing anything."""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import KeyPath, tree_leaves_with_path

from gptjax.config import Config
from gptjax.console import Say
from gptjax.parallel.mesh import Sizes, name_of, parts, spec_of
from gptjax.tasks.language_model import init_from
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.text import token_files
from gptjax.text.characters import CharTokenizer
from gptjax.text.corpora import Source, cache_folder, source
from gptjax.text.token_files import Corpus
from gptjax.training.learner import Learner
from gptjax.training.steps import run_key

KNOWN = {'gpt2': 50_257, 'byte': 257}  # of corpora, whose documents end with a token
# Where no text is there to be counted, and data.vocab_size does not say. 96: printable ASCII.
ASSUMED = {'char': 96, 'word': 20_000, 'bpe': 4_096}


class Leaf(NamedTuple):
    """An array of a state, or as many equal ones as there are blocks."""

    path: KeyPath
    shape: tuple[int, ...]
    itemsize: int
    times: int

    @property
    def name(self) -> str:
        """The path as text, such as `params/params/block_0/mlp/up/kernel`."""
        return name_of(self.path)

    @property
    def is_parameter(self) -> bool:
        """Whether it is of the model, not of the optimizer."""
        return self.name.startswith('params/')

    @property
    def is_optimizer(self) -> bool:
        """Whether it is of the optimizer, or one of the few scalars beside it."""
        return not self.name.startswith(('params/', 'mean/'))

    def bytes_on(self, sizes: Sizes) -> int:
        """Bytes on each device of a mesh of these sizes."""
        split = math.prod(parts(axes, sizes) for axes in spec_of(self.path, self.shape, sizes))
        return math.prod(self.shape) // split * self.itemsize * self.times


def without_data(config: Config, say: Say) -> tuple[LanguageModel, str]:
    """The task with its vocabulary but no text, and how the size of the vocabulary is known.

    Nothing is downloaded. A text that is there is read, for its vocabulary.

    Raises:
      UserError: `data.path` cannot be read, or `train.init_from` is no run.
    """
    if config.train.init_from:
        config, tokenizer = init_from.adopt(config)
        return of_vocabulary(config, tokenizer.vocab_size), 'of the run to start from'
    size, how = _vocabulary(config, say)
    return of_vocabulary(config, size), how


def of_vocabulary(config: Config, size: int) -> LanguageModel:
    """The task with a vocabulary of this size but no text: its shapes are right."""
    ids = CharTokenizer(''.join(map(chr, range(size))))
    return LanguageModel(config, Corpus(ids, None, None, sha256=''))


def _vocabulary(config: Config, say: Say) -> tuple[int, str]:
    data = config.data
    if data.tokenizer in KNOWN and not (data.path and data.tokenizer == 'byte'):
        return KNOWN[data.tokenizer], f'of the {data.tokenizer} tokenizer'
    if text := source(data, say) if data.path else _fetched(config):
        return token_files.prepare(text, data, say=say).tokenizer.vocab_size, f'of {text.train[0]}'
    size = data.vocab_size or ASSUMED[data.tokenizer]
    return size, 'assumed, since the text is not here: --mode=data fetches it'


def _fetched(config: Config) -> Source | None:
    """The configured corpus, if it was fetched before."""
    folder = cache_folder(config.data) / 'texts'
    for train in sorted(folder.glob(f'{config.data.corpus}-*-train.txt')):
        val = train.with_name(train.name.replace('-train.txt', '-val.txt'))
        return Source((train,), (val,) if val.exists() else (), marked=True)
    return None


def leaves(task: Learner) -> list[Leaf]:
    """The arrays of a task's state.

    Blocks are alike, so one is traced and counted as often as there are blocks: tracing a thousand
    would take a minute.
    """
    n_layer = task.config.model.n_layer
    if isinstance(task, LanguageModel):
        task = with_layers(task, 1)
    else:
        n_layer = 1
    state = jax.eval_shape(task.init_state, run_key(0))
    return [_leaf(path, x, n_layer) for path, x in tree_leaves_with_path(state)]


def _leaf(path: KeyPath, x: jax.ShapeDtypeStruct, n_layer: int) -> Leaf:
    name = name_of(path)
    shape, itemsize = x.shape, x.dtype.itemsize
    if '/stack_' in name:  # Muon's: the matrices of all blocks lie along the first axis.
        return Leaf(path, (shape[0] * n_layer, *shape[1:]), itemsize, 1)
    return Leaf(path, shape, itemsize, n_layer if '/block_0/' in name else 1)


def with_layers(task: LanguageModel, n_layer: int) -> LanguageModel:
    """The same task with another number of blocks."""
    return with_model(task, n_layer=n_layer)


def with_model(task: LanguageModel, **knobs: int | str) -> LanguageModel:
    """The same task with other knobs of the model."""
    model = dataclasses.replace(task.config.model, **knobs)  # type: ignore[arg-type]
    return dataclasses.replace(task, config=dataclasses.replace(task.config, model=model))


def with_train(config: Config, **knobs: int | str) -> Config:
    """The same configuration with other knobs of training."""
    train = dataclasses.replace(config.train, **knobs)  # type: ignore[arg-type]
    return dataclasses.replace(config, train=train)


def flops_per_token(task: LanguageModel) -> float:
    """As the task's own, from one and two blocks, since every further block adds the same."""
    one, two = (with_layers(task, n).flops_per_token() for n in (1, 2))
    return one + (task.config.model.n_layer - 1) * (two - one)


def recomputed_per_token(task: LanguageModel) -> float:
    """FLOPs of what `train.remat` computes again: attention, or the forward pass of all blocks."""
    model, remat = task.config.model, task.config.train.remat
    if remat == 'products':
        return 4.0 * model.n_layer * model.block_size * model.n_embd
    one, two = (with_layers(task, n).flops_per_token() for n in (1, 2))
    return model.n_layer * (two - one) / 3 if remat == 'block' else 0.0


def batches(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """The stacked batches of a call that does one step, see `make_multi_step`."""
    rows, length = config.train.batch_size, config.model.block_size
    tokens = jax.ShapeDtypeStruct((1, rows, length), jnp.int32)
    return {
        'inputs': tokens,
        'targets': tokens,
        'lengths': jax.ShapeDtypeStruct((1, rows), jnp.int32),
    }


def divisors(n: int) -> Iterator[int]:
    """The divisors of n, the smallest first."""
    return (d for d in range(1, n + 1) if n % d == 0)
