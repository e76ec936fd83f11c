"""Settings of training, and of the devices it uses."""

import dataclasses
import math

from gptjax.config.schema import Section, knob
from gptjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainConfig(Section):
    """Optimisation, evaluation and checkpoints."""

    steps: int = knob(2000, 'optimizer steps', low=1)
    batch_size: int = knob(32, 'sequences per optimizer step', low=1, high=2**20)
    steps_per_call: int = knob(1, 'optimizer steps per device call; more helps tiny models', low=1)
    accumulate: int = knob(1, 'micro-batches per optimizer step, to save memory', low=1)
    logits_chunk: int = knob(0, 'positions per row with logits in memory at a time; 0: all', low=0)
    scan_layers: bool = knob(False, 'one compiled loop over all blocks, which compiles faster')
    remat: str = knob(
        'none',
        'what the backward pass computes again to save memory: none, all of a block but its '
        'matrix products with parameters, or the whole block; implies train.scan_layers',
        choices=('none', 'products', 'block'),
    )
    matmul_dtype: str = knob(
        'auto',
        'type to which training rounds what it multiplies with weights; auto: bfloat16 on a CPU '
        'with AVX-512 BF16 or AMX, otherwise that of model.dtype',
        choices=('auto', 'float32', 'bfloat16'),
    )
    optimizer: str = knob('adamw', 'update rule', choices=('adamw', 'muon', 'adam', 'sgd'))
    learning_rate: float = knob(1e-3, 'peak learning rate', above=0.0)
    min_learning_rate: float = knob(0.0, 'learning rate at the end of the decay', low=0.0)
    schedule: str = knob('cosine', 'schedule of the learning rate', choices=('cosine', 'constant'))
    warmup_steps: int = knob(0, 'steps of linear learning-rate warm-up', low=0)
    weight_decay: float = knob(0.1, 'decoupled weight decay of matrices', low=0.0)
    beta1: float = knob(0.9, 'decay rate of the first moment or momentum', low=0.0, below=1.0)
    beta2: float = knob(0.99, 'decay rate of the second moment', low=0.0, below=1.0)
    moment_dtype: str = knob(
        'float32',
        "type in which the optimizer's first moment or momentum is stored",
        choices=('float32', 'bfloat16'),
    )
    average: float = knob(
        0.0,
        'decay of the running mean of the parameters, which is evaluated and used; 0: no mean',
        low=0.0,
        below=1.0,
    )
    grad_clip: float = knob(1.0, 'largest global gradient norm; 0: no clipping', low=0.0)
    eval_every: int = knob(250, 'steps between evaluations', low=1)
    eval_batches: int = knob(4, 'batches per evaluation; 0: the whole split', low=0)
    eval_train: bool = knob(False, 'evaluation on as much training text too, without dropout')
    save_every: int = knob(250, 'steps between checkpoints', low=1)
    keep: int = knob(2, 'newest checkpoints kept, besides the best one', low=1)
    log_every: int = knob(10, 'steps between rows of metrics', low=1)
    tracker: str = knob(
        'none',
        'where the metrics go besides metrics.jsonl',
        choices=('none', 'tensorboard', 'wandb'),
    )
    seed: int = knob(1337, 'seed of initialisation, batches, dropout', low=0, high=2**31 - 1)
    init_from: str = knob('', 'work directory of a trained or imported model to start from')
    lora_rank: int = knob(0, 'rank of the LoRA change; 0: all parameters are trained', low=0)
    lora_alpha: float = knob(16.0, 'LoRA scale: alpha / rank times the change', above=0.0)
    lora_targets: tuple[str, ...] = knob(('query', 'value'), 'matrices with a LoRA change')
    resume: str = knob(
        'auto', 'treatment of an existing run: resume, or refuse', choices=('auto', 'never')
    )

    def __post_init__(self) -> None:
        super().__post_init__()
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
        if self.optimizer == 'sgd' and self.moment_dtype != 'float32':
            raise UserError(
                f'train.moment_dtype={self.moment_dtype} has no effect with train.optimizer=sgd, '
                'which has no moments; leave it at float32'
            )
        if self.min_learning_rate > self.learning_rate:
            raise UserError(
                f'train.min_learning_rate={self.min_learning_rate} is above '
                f'train.learning_rate={self.learning_rate}; lower the first or raise the second'
            )


@dataclasses.dataclass(frozen=True)
class MeshConfig(Section):
    """The device mesh; the product of its sizes is the number of devices used."""

    data: int = knob(
        0, 'copies of the model, which share the batch; 0: all that fit, -1: all devices', low=-1
    )
    fsdp: int = knob(1, 'shards in which parameters are stored; -1: all devices', low=-1)
    tensor: int = knob(1, 'shards into which each product is split; -1: all devices', low=-1)
    offload: bool = knob(False, "keep the optimizer's state in the host's memory between updates")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ('fsdp', 'tensor'):
            if not getattr(self, name):
                raise UserError(f'mesh.{name}=0 gives no shard; set mesh.{name}=1 or more, or -1')
