"""Settings of the decoder."""

import dataclasses

from gptjax.config.schema import Section, knob
from gptjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section):
    """The architecture. A run with other values here is another model."""

    kind: str = knob('decoder', 'Transformer, or table of bigrams', choices=('decoder', 'bigram'))
    block_size: int = knob(64, 'longest context in tokens', low=2, high=2**20)
    n_layer: int = knob(4, 'Transformer blocks', low=1, high=1000)
    n_head: int = knob(4, 'attention heads', low=1, high=1024)
    n_embd: int = knob(128, 'width of the residual stream', low=1, high=2**17)
    n_hidden: int = knob(0, 'width of the feed-forward layer; 0: 4 * n_embd', low=0, high=2**19)
    dropout: float = knob(0.0, 'dropout of embedding, attention, residuals', low=0.0, below=1.0)
    position: str = knob(
        'rotary', 'position encoding', choices=('learned', 'sinusoidal', 'rotary', 'none')
    )
    norm: str = knob('rms', 'kind of normalisation', choices=('layer', 'rms'))
    norm_place: str = knob(
        'before',
        'place of the norms: x + f(norm(x)), norm(x + f(x)), or x + norm(f(x))',
        choices=('before', 'after', 'branch'),
    )
    activation: str = knob(
        'relu2', 'feed-forward activation', choices=('gelu', 'gelu_exact', 'relu', 'relu2')
    )
    qk_norm: bool = knob(True, 'RMS normalisation of queries and keys, without a scale')
    bias: bool = knob(False, 'biases in the linear layers and the layer norms')
    head_bias: bool = knob(False, 'bias in the output head')
    tied_head: bool = knob(False, 'sharing of the embedding matrix with the output head')
    vocab_multiple: int = knob(
        1, 'divisor of the padded vocabulary size; 128 suits a GPU', low=1, high=2**16
    )
    attention: str = knob(
        'auto',
        'attention implementation; auto: cuDNN flash attention where possible',
        choices=('auto', 'xla', 'cudnn'),
    )
    ngram: int = knob(
        1, 'longest n-gram of preceding tokens with an embedding of its own; 1: none', low=1, high=8
    )
    ngram_rows: int = knob(2**13, 'rows of the hash table of each n-gram length', low=2, high=2**24)
    scale_embedding: bool = knob(False, 'multiplication of token embeddings by sqrt(model.n_embd)')
    residual_init: str = knob(
        'zero',
        'last matrix of a residual branch: zeros, N(0, 0.02), or N(0, 0.02 / sqrt(2 n_layer))',
        choices=('zero', 'plain', 'scaled'),
    )
    dtype: str = knob(
        'auto',
        'type of computation (parameters stay float32); auto: bfloat16 on a GPU or TPU that '
        'multiplies it, otherwise float32',
        choices=('auto', 'float32', 'bfloat16'),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        width, heads = self.n_embd, self.n_head
        if width % heads:
            raise UserError(
                f'model.n_embd={width} is not divisible by model.n_head={heads}; '
                f'try model.n_embd={heads * (width // heads + 1)}'
            )
        if self.position == 'rotary' and (width // heads) % 2:
            raise UserError(
                f'model.position=rotary needs an even head width, and n_embd/n_head is '
                f'{width // heads}; try model.n_embd={heads * (width // heads + 1)}'
            )
        if self.position == 'sinusoidal' and width % 2:
            raise UserError(
                f'model.position=sinusoidal needs an even n_embd, not {width}; '
                f'try model.n_embd={width + heads}'
            )
        if self.tied_head and self.head_bias:
            raise UserError(
                'model.head_bias=True needs a head of its own; add model.tied_head=False'
            )
