"""Settings of generation and of benchmarks."""

import dataclasses

from gptjax.config.schema import Section, knob
from gptjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SampleConfig(Section):
    """How text is generated from a trained model."""

    max_new_tokens: int = knob(500, 'tokens to generate', low=1)
    temperature: float = knob(0.8, 'softmax temperature; 0: greedy', low=0.0, high=1e3)
    top_k: int = knob(0, 'number of likeliest tokens kept; 0: all', low=0)
    top_p: float = knob(1.0, 'total probability of the likeliest tokens kept', above=0, high=1)
    min_p: float = knob(0.0, 'least probability kept, as a share of the largest', low=0.0, high=1.0)
    repetition_penalty: float = knob(1.0, 'penalty on seen tokens; 1: none', low=0.01, high=100.0)
    num_samples: int = knob(1, 'texts for each prompt', low=1, high=4096)
    beam: int = knob(1, 'beam size of a translation; 1: no beam search', low=1, high=1024)
    length_penalty: float = knob(0.6, 'favour of a beam for long texts; 0: none', low=0, high=10)
    long_lines: str = knob(
        'refuse', 'treatment of lines longer than model.block_size', choices=('refuse', 'split')
    )
    stop: tuple[str, ...] = knob((), 'strings that end a text and are not printed')
    seed: int = knob(1337, 'random seed of sampling', low=0, high=2**31 - 1)
    unknown: str = knob(
        'error', 'treatment of prompt characters outside the vocabulary', choices=('error', 'skip')
    )
    weights: str = knob(
        'auto',
        'type of the weights that are multiplied; auto: the type of computation. bfloat16 reads '
        'half as much for each token',
        choices=('auto', 'float32', 'bfloat16'),
    )
    chunk: int = knob(16, 'tokens decoded per device call', low=1, high=4096)
    checkpoint: str = knob('best', 'checkpoint to load', choices=('best', 'latest'))

    def __post_init__(self) -> None:
        super().__post_init__()
        if '' in self.stop:
            raise UserError('sample.stop has an empty string, which ends every text; remove it')
        if 1 < self.beam < self.num_samples:
            raise UserError(
                f'sample.num_samples={self.num_samples} is more than the sample.beam={self.beam} '
                f'that there are; try sample.beam={self.num_samples}'
            )


@dataclasses.dataclass(frozen=True)
class BenchConfig(Section):
    """What --mode=bench measures, and for how long."""

    rounds: int = knob(7, 'turns of each system', low=2)
    turn_s: float = knob(1.0, 'approximate seconds of a turn', above=0.0)
    batch_size: int = knob(64, 'texts generated at once, measured besides a single text', low=2)
    prompt_tokens: int = knob(1, 'length of the prompt that is continued', low=1)
    greedy: bool = knob(False, 'generation of the likeliest tokens instead of sampling')
    torch_compile: bool = knob(True, 'measurement of torch.compile besides eager PyTorch')
    uncached: bool = knob(
        True, 'generation by PyTorch without a cache, which takes minutes after a long prompt'
    )
