"""GPT-2 as Hugging Face stores it: one table of names, read in both directions.

Their linear maps (`Conv1D`) are (inputs, outputs) as ours are; theirs has queries, keys and values
side by side in one matrix.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gptjax.config import ModelConfig
from gptjax.errors import UserError
from gptjax.models.linear import matrix_shape

Arrays = dict[str, np.ndarray]

# Our activation -> theirs. Theirs have several names for the tanh GELU.
ACTIVATIONS = {'gelu': 'gelu_new', 'gelu_exact': 'gelu', 'relu': 'relu', 'relu2': 'relu2'}
SAME_AS = {'gelu_pytorch_tanh': 'gelu_new', 'gelu_fast': 'gelu_new'}
SIZES = {'block_size': 'n_positions', 'n_layer': 'n_layer', 'n_head': 'n_head', 'n_embd': 'n_embd'}
EPSILON = 1e-5  # of our layer norm


class Entry(NamedTuple):
    """One of their arrays: its name, ours that stand side by side in it, whether transposed."""

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False


def table(config: ModelConfig) -> Iterator[Entry]:
    """All of their arrays, without the prefix `transformer.`."""
    yield Entry('wte.weight', ('embed.embedding',))
    yield Entry('wpe.weight', ('embed_pos.embedding',))
    for i in range(config.n_layer):
        for theirs, weight, *ours in (
            ('ln_1', 'scale', 'norm_attn'),
            ('attn.c_attn', 'kernel', 'attn.query', 'attn.key', 'attn.value'),
            ('attn.c_proj', 'kernel', 'attn.out'),
            ('ln_2', 'scale', 'norm_mlp'),
            ('mlp.c_fc', 'kernel', 'mlp.up'),
            ('mlp.c_proj', 'kernel', 'mlp.down'),
        ):
            for name, kind in (('weight', weight), ('bias', 'bias')):
                names = tuple(f'block_{i}.{module}.{kind}' for module in ours)
                yield Entry(f'h.{i}.{theirs}.{name}', names)
    yield Entry('ln_f.weight', ('norm_final.scale',))
    yield Entry('ln_f.bias', ('norm_final.bias',))
    if not config.tied_head:
        yield Entry('lm_head.weight', ('head.kernel',), transposed=True)


def to_ours(theirs: Arrays, config: ModelConfig, shapes: dict[str, tuple[int, ...]]) -> Arrays:
    """Our parameters by dotted names, of these shapes, in float32.

    Raises UserError, which lists every array that is missing, is not known or has another shape.
    """
    expected = {entry.theirs: _their_shape(entry, shapes) for entry in table(config)}
    # Masks are no parameters, and a tied head is the embedding again.
    ignored = ('.attn.bias', '.attn.masked_bias', *(('lm_head.weight',) * config.tied_head))
    theirs = {
        name.removeprefix('transformer.'): array
        for name, array in theirs.items()
        if not name.endswith(ignored)
    }
    problems = [f'{name} is missing' for name in sorted(expected.keys() - theirs.keys())]
    problems += [f'{name} is not known' for name in sorted(theirs.keys() - expected.keys())]
    problems += [
        f'{name} is {list(theirs[name].shape)} and not {list(shape)}'
        for name, shape in expected.items()
        if name in theirs and theirs[name].shape != shape
    ]
    if problems:
        raise UserError(
            f'the weights do not fit their config.json: {"; ".join(problems)}; '
            'get all files of one model again'
        )
    ours = {}
    for entry in table(config):
        array = np.asarray(theirs[entry.theirs], np.float32)
        array = array.T if entry.transposed else array
        for name, part in zip(entry.ours, np.split(array, len(entry.ours), -1), strict=True):
            ours[name] = np.ascontiguousarray(part).reshape(shapes[name])
    return ours


def to_theirs(ours: Arrays, config: ModelConfig, vocab_size: int) -> Arrays:
    """Their arrays, with the names of `GPT2LMHeadModel`; biases that we lack are zeros."""
    ours = {name: np.asarray(array, np.float32) for name, array in ours.items()}
    # Without the padding of model.vocab_multiple.
    ours['embed.embedding'] = ours['embed.embedding'][:vocab_size]
    if 'head.kernel' in ours:
        ours['head.kernel'] = ours['head.kernel'][:, :vocab_size]
    theirs = {}
    for entry in table(config):
        if entry.ours[0] in ours:
            parts = [ours[name].reshape(_matrix(name, ours[name].shape)) for name in entry.ours]
            array = np.concatenate(parts, -1)
        else:  # With config.bias=False: zeros, one for each column of the weight before.
            array = np.zeros(array.shape[-1], np.float32)
        prefix = '' if entry.theirs.startswith('lm_head') else 'transformer.'
        array = array.T if entry.transposed else array
        theirs[prefix + entry.theirs] = np.ascontiguousarray(array)
    return theirs


def config_to_ours(theirs: dict[str, Any]) -> dict[str, Any]:
    """The model knobs of a Hugging Face `config.json`.

    Raises UserError if it is no GPT-2, or has an option that our decoder lacks.
    """
    if theirs.get('model_type') != 'gpt2':
        raise UserError(
            f'config.json has model_type={theirs.get("model_type")!r}, and only gpt2 can be '
            'imported; convert the model, or choose a GPT-2'
        )
    wanted = {
        'layer_norm_epsilon': EPSILON,
        'scale_attn_weights': True,
        'scale_attn_by_inverse_layer_idx': False,
        'add_cross_attention': False,
    }
    for name, value in wanted.items():
        if (found := theirs.get(name, value)) != value:
            raise UserError(
                f'config.json has {name}={found}, and our decoder has {value}; '
                'this model cannot be imported'
            )
    activation = theirs.get('activation_function', 'gelu_new')
    activation = SAME_AS.get(activation, activation)
    names = {there: here for here, there in ACTIVATIONS.items()}
    if activation not in names:
        raise UserError(
            f'config.json has activation_function={activation!r}, which our decoder lacks; '
            f'it has {", ".join(names)}'
        )
    try:
        sizes = {ours: theirs[name] for ours, name in SIZES.items()}
    except KeyError as error:
        raise UserError(f'config.json lacks {error}; is it that of a GPT-2?') from None
    return {
        **sizes,
        **REQUIRED,
        'n_hidden': theirs.get('n_inner') or 0,
        'activation': names[activation],
        'tied_head': theirs.get('tie_word_embeddings', True),
        'dropout': 0.0,
        'bias': True,
    }


# What GPT-2's architecture fixes. Other values of these cannot be exported.
REQUIRED = {
    'kind': 'decoder',
    'position': 'learned',
    'norm': 'layer',
    'norm_place': 'before',
    'qk_norm': False,
    'ngram': 1,
    'head_bias': False,
    'scale_embedding': False,
}


def lacking(config: ModelConfig) -> list[str]:
    """The options of a model that GPT-2 lacks, in words."""
    return [
        f'model.{name}={getattr(config, name)} (GPT-2 has {value})'
        for name, value in REQUIRED.items()
        if getattr(config, name) != value
    ]


def config_to_theirs(config: ModelConfig, vocab_size: int, end: int | None) -> dict[str, Any]:
    """The `config.json` of an exported model. Raises UserError for options that GPT-2 lacks."""
    if differing := lacking(config):
        raise UserError(
            f"GPT-2 cannot express {', '.join(differing)}; train with GPT-2's options, "
            'as configs/gpt2.py and configs/char_nanogpt.py do'
        )
    return {
        'architectures': ['GPT2LMHeadModel'],
        'model_type': 'gpt2',
        'vocab_size': vocab_size,
        **{name: getattr(config, ours) for ours, name in SIZES.items()},
        'n_inner': config.n_hidden or None,
        'activation_function': ACTIVATIONS[config.activation],
        'layer_norm_epsilon': EPSILON,
        'tie_word_embeddings': config.tied_head,
        **dict.fromkeys(('resid_pdrop', 'embd_pdrop', 'attn_pdrop'), config.dropout),
        **dict.fromkeys(('bos_token_id', 'eos_token_id'), end),
        'torch_dtype': 'float32',
    }


def _their_shape(entry: Entry, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    *rows, columns = _matrix(entry.ours[0], shapes[entry.ours[0]])
    shape = (*rows, columns * len(entry.ours))
    return shape[::-1] if entry.transposed else shape


def _matrix(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one of our arrays with its heads side by side."""
    *_, module, kind = name.split('.')
    if kind == 'kernel':
        return matrix_shape(module, shape)
    return shape if kind == 'embedding' else (int(np.prod(shape)),)
