"""Every knob of gptjax, once: its name, type, default, bound and meaning.

Config files (`configs/*.py`) start from `default_config()` and override a few knobs; the command
line overrides more (`--config.model.n_layer=6`). `from_config_dict` turns the result into the
frozen dataclasses below, which are all that the rest of the package ever sees.

Nothing here imports JAX, so that a mistake is reported before anything heavy is loaded.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import ml_collections

from gptjax.errors import UserError
from gptjax.schema import build, check_bounds, knob


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The architecture. Anything here that changes makes another model."""

    block_size: int = knob(64, 'the longest context, in tokens', low=2, high=2**20)
    n_layer: int = knob(4, 'Transformer blocks', low=1, high=1000)
    n_head: int = knob(4, 'attention heads', low=1, high=1024)
    n_embd: int = knob(128, 'width of the residual stream', low=1, high=2**17)
    n_hidden: int = knob(0, 'width of the feed-forward layer; 0: 4 * n_embd', low=0, high=2**19)
    dropout: float = knob(0.0, 'dropout of embedding, attention, residuals', low=0.0, below=1.0)
    position: str = knob('rotary', 'positions', choices=('learned', 'sinusoidal', 'rotary', 'none'))
    norm: str = knob('rms', 'kind of normalisation', choices=('layer', 'rms'))
    norm_place: str = knob(
        'before',
        'x + f(norm(x)), norm(x + f(x)), or x + norm(f(x))',
        choices=('before', 'after', 'branch'),
    )
    activation: str = knob(
        'relu2', 'of the feed-forward layer', choices=('gelu', 'gelu_exact', 'relu', 'relu2')
    )
    qk_norm: bool = knob(True, 'normalise queries and keys (RMS, without a scale)')
    bias: bool = knob(False, 'biases in the linear layers and the layer norms')
    head_bias: bool = knob(False, 'a bias in the output head')
    tied_head: bool = knob(False, 'the output head is the transposed embedding')
    vocab_multiple: int = knob(
        1, 'the embedding is padded to a multiple of this: 128 suits a GPU', low=1, high=2**16
    )
    attention: str = knob(
        'auto',
        'the implementation: ours, cuDNN flash attention, or the latter where it can be used',
        choices=('auto', 'xla', 'cudnn'),
    )
    scale_embedding: bool = knob(False, 'multiply the token embedding by sqrt(n_embd)')
    residual_init: str = knob(
        'zero',
        'last matrix of each residual branch: zeros, N(0, 0.02), or N(0, 0.02 / sqrt(2 n_layer))',
        choices=('zero', 'plain', 'scaled'),
    )
    dtype: str = knob(
        'float32', 'of the computation; parameters stay float32', choices=('float32', 'bfloat16')
    )

    def __post_init__(self):
        check_bounds(self)
        width, heads = self.n_embd, self.n_head
        if width % heads:
            raise UserError(
                f'model.n_embd={width} is not divisible by model.n_head={heads}; '
                f'try --config.model.n_embd={heads * (width // heads + 1)}'
            )
        if self.position == 'rotary' and (width // heads) % 2:
            raise UserError(
                f'model.position=rotary needs an even head width, and n_embd/n_head is '
                f'{width // heads}; try --config.model.n_embd={heads * (width // heads + 1)}'
            )
        if self.position == 'sinusoidal' and width % 2:
            raise UserError(
                f'model.position=sinusoidal needs an even n_embd, not {width}; '
                f'try --config.model.n_embd={width + heads}'
            )
        if self.tied_head and self.head_bias:
            raise UserError(
                'model.head_bias=True needs a head of its own; add --config.model.tied_head=False'
            )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it is cut."""

    corpus: str = knob('shakespeare', 'a name from data/corpora.toml; unused if path is given')
    path: str = knob('', 'a UTF-8 text file of your own, or a folder of such files')
    val_path: str = knob('', 'a separate validation text; otherwise a part of the text is held out')
    val_fraction: float = knob(0.1, 'share of the text held out', above=0.0, below=1.0)
    split: str = knob(
        'end',
        'what is held out: the end of the text, or whole documents at random',
        choices=('end', 'documents'),
    )
    normalize: str = knob(
        'none', 'cleaning of text and prompts', choices=('none', 'nfkc', 'persian')
    )
    lowercase: bool = knob(False, 'no capital letters')
    tokenizer: str = knob(
        'char', 'what a token is', choices=('char', 'byte', 'word', 'bpe', 'gpt2')
    )
    vocab_size: int = knob(
        0, 'most tokens of a vocabulary of words or BPE; 0: all words, 4096 pieces', low=0
    )
    min_count: int = knob(1, 'words that are rarer become <UNKNOWN>', low=1)
    vocab_order: str = knob(
        'frequency', 'words that a limited vocabulary keeps', choices=('frequency', 'appearance')
    )
    order: str = knob(
        'random', 'training batches: random windows, or in order', choices=('random', 'consecutive')
    )
    cache_dir: str = knob('', 'downloads and token files; empty means data/cache of the project')

    def __post_init__(self):
        check_bounds(self)
        if self.val_path and not self.path:
            raise UserError(
                f'data.val_path={self.val_path} needs a training text of your own beside it; '
                'add --config.data.path=FILE'
            )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The optimisation and what is written on the way."""

    steps: int = knob(2000, 'optimizer steps', low=1)
    batch_size: int = knob(32, 'sequences in an optimizer step', low=1, high=2**20)
    steps_per_call: int = knob(
        1, 'steps that the devices do before the host looks: more pays for tiny models', low=1
    )
    accumulate: int = knob(1, 'parts that a batch is computed in, to save memory', low=1)
    logits_chunk: int = knob(
        0, 'positions of a row whose logits exist at a time; 0: all. Saves memory', low=0
    )
    optimizer: str = knob('adamw', 'update rule', choices=('adamw', 'muon', 'adam', 'sgd'))
    learning_rate: float = knob(1e-3, 'peak learning rate', above=0.0)
    min_learning_rate: float = knob(0.0, 'learning rate at the end of the decay', low=0.0)
    schedule: str = knob('cosine', 'after the warm-up', choices=('cosine', 'constant'))
    warmup_steps: int = knob(0, 'steps of linear warm-up', low=0)
    weight_decay: float = knob(0.1, 'of AdamW, on matrices only', low=0.0)
    beta1: float = knob(0.9, 'of Adam, and of the momentum of Muon', low=0.0, below=1.0)
    beta2: float = knob(0.99, 'of Adam', low=0.0, below=1.0)
    grad_clip: float = knob(1.0, 'largest global norm of the gradient; 0 is off', low=0.0)
    eval_every: int = knob(250, 'steps between evaluations', low=1)
    eval_batches: int = knob(4, 'sampled validation batches in each of them', low=1)
    save_every: int = knob(250, 'steps between checkpoints', low=1)
    keep: int = knob(2, 'newest checkpoints kept; the best one is kept besides', low=1)
    log_every: int = knob(10, 'steps between lines of metrics', low=1)
    seed: int = knob(1337, 'of initialisation, batches and dropout', low=0, high=2**31 - 1)
    resume: str = knob(
        'auto', 'continue the work directory, or refuse one that exists', choices=('auto', 'never')
    )

    def __post_init__(self):
        check_bounds(self)
        if self.batch_size % self.accumulate:
            raise UserError(
                f'train.batch_size={self.batch_size} is not divisible by '
                f'train.accumulate={self.accumulate}; try --config.train.batch_size='
                f'{self.accumulate * math.ceil(self.batch_size / self.accumulate)}'
            )
        if self.min_learning_rate > self.learning_rate:
            raise UserError(
                f'train.min_learning_rate={self.min_learning_rate} is above '
                f'train.learning_rate={self.learning_rate}; lower the first or raise the second'
            )


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """How text is drawn from a trained model."""

    max_new_tokens: int = knob(500, 'tokens to generate', low=1)
    temperature: float = knob(0.8, 'divides the logits; 0 is greedy', low=0.0, high=1e3)
    top_k: int = knob(0, 'keep the k likeliest tokens; 0 is off', low=0)
    top_p: float = knob(1.0, 'keep the likeliest tokens of this total probability', above=0, high=1)
    min_p: float = knob(0.0, 'drop tokens below this share of the likeliest', low=0.0, high=1.0)
    repetition_penalty: float = knob(1.0, 'weakens seen tokens; 1 is off', low=0.01, high=100.0)
    num_samples: int = knob(1, 'texts for each prompt', low=1, high=4096)
    stop: tuple[str, ...] = knob((), 'strings that end a text (they are not printed)')
    seed: int = knob(1337, 'of the random draws', low=0, high=2**31 - 1)
    unknown: str = knob(
        'error', 'prompt characters that the vocabulary lacks', choices=('error', 'skip')
    )
    chunk: int = knob(16, 'tokens decoded between two looks of the host', low=1, high=4096)
    checkpoint: str = knob('best', 'which to load', choices=('best', 'latest'))

    def __post_init__(self):
        check_bounds(self)
        if '' in self.stop:
            raise UserError('sample.stop has an empty string, which ends every text; remove it')


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the devices are arranged; their product is the number of devices used."""

    data: int = knob(0, 'copies of the model, each with its part of the batch; 0 is all', low=0)
    fsdp: int = knob(1, 'parts that parameters are stored in', low=1)
    tensor: int = knob(1, 'parts that each matrix product is split into', low=1)

    def __post_init__(self):
        check_bounds(self)


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """How long --mode=bench measures."""

    rounds: int = knob(7, 'turns of each side', low=2)
    turn_s: float = knob(1.0, 'seconds that a turn takes, about', above=0.0)
    batch_size: int = knob(64, 'texts generated at once, besides one alone', low=2)
    torch_compile: bool = knob(True, 'measure torch.compile besides eager PyTorch')

    def __post_init__(self):
        check_bounds(self)


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration of a run; hashable, and the content of config.json."""

    name: str = knob('custom', 'of the recipe, for messages')
    task: str = knob('language_model', 'what is learnt', choices=('language_model',))
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    mesh: MeshConfig = MeshConfig()
    bench: BenchConfig = BenchConfig()

    def __post_init__(self):
        check_bounds(self)


def default_config() -> ml_collections.ConfigDict:
    """All knobs at their defaults, for a config file to override."""
    return ml_collections.ConfigDict(dataclasses.asdict(Config()))


def from_config_dict(values: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
    """The dataclass of a ConfigDict or of parsed JSON; what is not there has its default.

    Raises:
      UserError: a key is unknown or of the wrong type, or a value is out of bounds.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    if not isinstance(values, Mapping):
        raise UserError(
            f'a configuration is a ConfigDict or a mapping, not {values!r}; '
            'let get_config() return what default_config() gave, with its changes'
        )
    return build(Config, values, '')


def to_json(config: Config) -> str:
    """The configuration as JSON text; `from_json` is its inverse."""
    return json.dumps(dataclasses.asdict(config), indent=2) + '\n'


def from_json(text: str) -> Config:
    """See `to_json`; raises UserError as `from_config_dict` does."""
    return from_config_dict(json.loads(text))
