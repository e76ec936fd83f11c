"""Knobs of what is done with a trained model."""

import dataclasses

from gptjax.config.schema import check_bounds, knob
from gptjax.errors import UserError


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
    beam: int = knob(
        1, 'hypotheses of a translation followed at a time; 1: greedy, or drawn', low=1, high=1024
    )
    length_penalty: float = knob(0.6, 'how far a beam favours long texts; 0 is off', low=0, high=10)
    long_lines: str = knob(
        'refuse', 'lines to translate that are over the block', choices=('refuse', 'split')
    )
    stop: tuple[str, ...] = knob((), 'strings that end a text (they are not printed)')
    seed: int = knob(1337, 'of the random draws', low=0, high=2**31 - 1)
    unknown: str = knob(
        'error', 'prompt characters that the vocabulary lacks', choices=('error', 'skip')
    )
    chunk: int = knob(16, 'tokens decoded between two looks of the host', low=1, high=4096)
    checkpoint: str = knob('best', 'which to load', choices=('best', 'latest'))

    def __post_init__(self) -> None:
        check_bounds(self)
        if '' in self.stop:
            raise UserError('sample.stop has an empty string, which ends every text; remove it')
        if 1 < self.beam < self.num_samples:
            raise UserError(
                f'sample.num_samples={self.num_samples} is more than the sample.beam={self.beam} '
                f'that there are; try sample.beam={self.num_samples}'
            )


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """How long --mode=bench measures."""

    rounds: int = knob(7, 'turns of each side', low=2)
    turn_s: float = knob(1.0, 'seconds that a turn takes, about', above=0.0)
    batch_size: int = knob(64, 'texts generated at once, besides one alone', low=2)
    torch_compile: bool = knob(True, 'measure torch.compile besides eager PyTorch')

    def __post_init__(self) -> None:
        check_bounds(self)
