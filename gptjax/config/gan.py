"""Settings of the GAN: sentences, generator, critic, and their training."""

import dataclasses

from gptjax.config.schema import Section, knob
from gptjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class GanConfig(Section):
    """The two networks and their training; widths and heads of both are those of `model`."""

    # The sentences.
    splitter: str = knob(
        'line', 'sentence splitter: lines, or the library pysbd', choices=('line', 'library')
    )
    min_words: int = knob(1, 'fewest words of a sentence, in training and in generation', low=1)
    max_words: int = knob(61, 'most words of a training sentence', low=1)
    letters_only: bool = knob(True, 'removal of punctuation marks')
    unknown: str = knob(
        'drop', 'treatment of sentences with words beyond data.vocab_size', choices=('drop', 'keep')
    )

    # The generator.
    noise: str = knob(
        'normal',
        'noise distribution: N(0, 1), U(-1, 1), or N(0, 1) truncated at 2',
        choices=('normal', 'uniform', 'truncated'),
    )
    noise_width: str = knob('full', 'numbers of noise at a position', choices=('full', 'one'))
    n_mapping: int = knob(4, 'linear layers of the mapping from noise to style w', low=1, high=1000)
    n_noise_layer: int = knob(1, 'generator blocks with noise and style w', low=0, high=1000)
    n_plain_layer: int = knob(1, 'plain blocks after the noise blocks', low=0, high=1000)
    causal: bool = knob(
        True, 'causal mask in the generator; False: no cache, each word recomputes all'
    )
    output: str = knob(
        'softmax',
        'words given to the critic: softmax, or one-hot with its gradient; with Gumbel noise',
        choices=('softmax', 'straight_through', 'gumbel', 'gumbel_straight_through'),
    )
    temperature: float = knob(1.0, 'softmax temperature during training', above=0.0, high=100.0)

    # The critic.
    n_critic_layer: int = knob(1, 'critic layers before the class token is added', low=0, high=1000)
    n_class_layer: int = knob(1, 'critic layers after the class token is added', low=0, high=1000)
    pooling: str = knob(
        'none',
        'input of the score: the class token, or a pooling over positions',
        choices=('none', 'average', 'max'),
    )
    spectral_norm: bool = knob(False, 'spectral normalisation of the critic')

    # The training.
    loss: str = knob(
        'wgan', 'Wasserstein loss, or non-saturating minimax', choices=('wgan', 'minimax')
    )
    penalty: float = knob(10.0, 'weight (lambda) of the gradient penalty; 0: off', low=0.0)
    n_critic: int = knob(5, 'critic steps per generator step', low=1, high=100)
    adaptive: bool = knob(
        False, 'gan.n_critic steps only while the loss of the critic changes faster, else one'
    )
    adaptive_ratio: float = knob(1.0, 'factor for a faster change in gan.adaptive', above=0.0)
    hide_after_end: bool = knob(True, 'zeros instead of words after <END> for the critic')
    critic_learning_rate: float = knob(0.0, "critic's rate; 0: train.learning_rate", low=0.0)
    pretrain_steps: int = knob(0, 'steps of pre-training with cross-entropy', low=0)
    pretrain_learning_rate: float = knob(2e-3, 'learning rate of pre-training', above=0.0)
    critic_steps: int = knob(0, 'steps of the critic alone after pre-training', low=0)
    anchor: float = knob(0.0, 'weight of cross-entropy during adversarial training', low=0.0)
    average: float = knob(
        0.0,
        'decay of the running mean of generator weights used for sampling; 0: off',
        low=0.0,
        below=1.0,
    )
    diffusion: float = knob(
        0.0,
        'largest variance of diffusion noise at the critic, out of 1; 0: off',
        low=0.0,
        below=1.0,
    )
    diffusion_target: float = knob(
        0.6, 'overconfidence of the critic that sets the noise', low=0.0, below=1.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
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
class GanSamplingConfig(Section):
    """Sampling and evaluation of a trained generator; each command may set them anew."""

    style: str = knob(
        'free',
        'style w of the samples: one each, one for all, or equal steps between two',
        choices=('free', 'fixed', 'interpolate'),
    )
    samples: int = knob(1000, 'sentences drawn for an evaluation', low=2, high=10**6)
    judge: str = knob('', 'work directory of a word-level language model that computes perplexity')
