"""Knobs of sentences from noise: the generator, its critic, and how the two are trained."""

import dataclasses

from gptjax.config.schema import check_bounds, knob
from gptjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class GanConfig:
    """What is learnt and how. Widths and heads are those of `model`, for both players."""

    # The sentences.
    splitter: str = knob(
        'line', 'what a sentence is: a line, or what pysbd finds', choices=('line', 'library')
    )
    min_words: int = knob(1, 'shorter sentences are left out, and never written', low=1)
    max_words: int = knob(61, 'longer sentences are left out', low=1)
    letters_only: bool = knob(True, 'punctuation marks are left out')
    unknown: str = knob(
        'drop', 'sentences with words beyond data.vocab_size', choices=('drop', 'keep')
    )

    # The generator.
    noise: str = knob(
        'normal',
        'N(0, 1), U(-1, 1), or N(0, 1) within 2',
        choices=('normal', 'uniform', 'truncated'),
    )
    noise_width: str = knob(
        'full', 'numbers of noise at a position: one each, or one for all', choices=('full', 'one')
    )
    n_mapping: int = knob(4, 'linear layers from the noise to the style w', low=1, high=1000)
    n_noise_layer: int = knob(1, 'blocks that take noise and w', low=0, high=1000)
    n_plain_layer: int = knob(1, 'blocks after them', low=0, high=1000)
    causal: bool = knob(
        True, 'a position sees those before it, so a cache serves; else all are computed anew'
    )
    output: str = knob(
        'softmax',
        'what the critic sees: softmax, or one-hot with its gradient; perturbed by Gumbel noise',
        choices=('softmax', 'straight_through', 'gumbel', 'gumbel_straight_through'),
    )
    temperature: float = knob(1.0, 'divides the logits in the softmax', above=0.0, high=100.0)

    # The critic.
    n_critic_layer: int = knob(1, 'layers before the class token joins', low=0, high=1000)
    n_class_layer: int = knob(1, 'layers with it', low=0, high=1000)
    pooling: str = knob(
        'none',
        'what is scored: the class token, or all positions',
        choices=('none', 'average', 'max'),
    )
    spectral_norm: bool = knob(False, "the critic's matrices have a largest singular value of 1")

    # The training.
    loss: str = knob('wgan', 'Wasserstein, or non-saturating minimax', choices=('wgan', 'minimax'))
    penalty: float = knob(10.0, 'weight (lambda) of the gradient penalty; 0 is off', low=0.0)
    n_critic: int = knob(5, 'critic steps for a step of the generator', low=1, high=100)
    adaptive: bool = knob(
        False, 'n_critic steps only while the loss of the critic changes faster, else one'
    )
    adaptive_ratio: float = knob(1.0, 'by this factor', above=0.0)
    hide_after_end: bool = knob(True, 'the critic does not see what follows <END>')
    critic_learning_rate: float = knob(0.0, '0: train.learning_rate', low=0.0)
    pretrain_steps: int = knob(0, 'first steps: the generator alone, by cross-entropy', low=0)
    pretrain_learning_rate: float = knob(2e-3, 'in these', above=0.0)
    critic_steps: int = knob(0, 'steps after these in which the critic alone learns', low=0)
    anchor: float = knob(0.0, "weight of cross-entropy in the generator's later steps", low=0.0)
    average: float = knob(
        0.0,
        "decay of a running mean of the generator's weights, which then writes; 0 is off",
        low=0.0,
        below=1.0,
    )
    diffusion: float = knob(
        0.0,
        'largest variance (of 1) of noise on what the critic sees; 0 is off',
        low=0.0,
        below=1.0,
    )
    diffusion_target: float = knob(0.6, 'overconfidence that the noise holds', low=0.0, below=1.0)

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.min_words > self.max_words:
            raise UserError(
                f'gan.min_words={self.min_words} is above gan.max_words={self.max_words}; '
                'lower the first or raise the second'
            )
        if not self.n_noise_layer + self.n_plain_layer:
            raise UserError(
                'gan.n_noise_layer=0 and gan.n_plain_layer=0 leave a generator without blocks; '
                'add gan.n_plain_layer=1'
            )
        if self.pooling == 'none' and not self.n_class_layer:
            raise UserError(
                'gan.n_class_layer=0 leaves the class token alone with itself; '
                'add gan.n_class_layer=1 or gan.pooling=average'
            )


@dataclasses.dataclass(frozen=True)
class GanSamplingConfig:
    """How a trained generator is shown and judged: may differ from command to command."""

    style: str = knob(
        'free',
        'w of the samples: one each, one for all, or from one to another in equal steps',
        choices=('free', 'fixed', 'interpolate'),
    )
    samples: int = knob(1000, 'sentences that an evaluation draws', low=2, high=10**6)
    judge: str = knob('', 'work directory of a word-level language model that judges perplexity')

    def __post_init__(self) -> None:
        check_bounds(self)
