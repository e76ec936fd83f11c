"""Knobs of training, and of the devices it uses."""

import dataclasses
import math

from gptjax.config.schema import check_bounds, knob
from gptjax.errors import UserError


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
    eval_batches: int = knob(4, 'sampled batches in each of them; 0: the whole split', low=0)
    eval_train: bool = knob(False, 'evaluate as much of the training text too, without dropout')
    save_every: int = knob(250, 'steps between checkpoints', low=1)
    keep: int = knob(2, 'newest checkpoints kept; the best one is kept besides', low=1)
    log_every: int = knob(10, 'steps between lines of metrics', low=1)
    seed: int = knob(1337, 'of initialisation, batches and dropout', low=0, high=2**31 - 1)
    init_from: str = knob('', 'work directory of a trained or imported model to start from')
    lora_rank: int = knob(0, 'train a change of this rank instead of all parameters; 0: all', low=0)
    lora_alpha: float = knob(16.0, 'the change is multiplied by alpha / rank', above=0.0)
    lora_targets: tuple[str, ...] = knob(('query', 'value'), 'matrices of the blocks that change')
    resume: str = knob(
        'auto', 'continue the work directory, or refuse one that exists', choices=('auto', 'never')
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.batch_size % self.accumulate:
            raise UserError(
                f'train.batch_size={self.batch_size} is not divisible by '
                f'train.accumulate={self.accumulate}; try train.batch_size='
                f'{self.accumulate * math.ceil(self.batch_size / self.accumulate)}'
            )
        names = ('query', 'key', 'value', 'out', 'up', 'down')
        if unknown := [name for name in self.lora_targets if name not in names]:
            raise UserError(
                f'train.lora_targets has {unknown[0]!r}, which is none of {", ".join(names)}; '
                'set train.lora_targets=\'("query","value")\' or others of these'
            )
        if self.lora_rank and not (self.init_from and self.lora_targets):
            raise UserError(
                f'train.lora_rank={self.lora_rank} needs a model to change and matrices of it; '
                'set train.init_from=DIR and train.lora_targets'
            )
        if self.min_learning_rate > self.learning_rate:
            raise UserError(
                f'train.min_learning_rate={self.min_learning_rate} is above '
                f'train.learning_rate={self.learning_rate}; lower the first or raise the second'
            )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the devices are arranged; their product is the number of devices used."""

    data: int = knob(0, 'copies of the model, each with its part of the batch; 0 is all', low=0)
    fsdp: int = knob(1, 'parts that parameters are stored in', low=1)
    tensor: int = knob(1, 'parts that each matrix product is split into', low=1)

    def __post_init__(self) -> None:
        check_bounds(self)
