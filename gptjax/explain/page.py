"""An explanation as one page of HTML that needs nothing else, of bounded size."""

import base64
import dataclasses
import json
from typing import Any

import jinja2
import numpy as np

from gptjax import pages
from gptjax.explain.attention import Attention, Heads
from gptjax.explain.live import Live
from gptjax.explain.sizes import Size
from gptjax.explain.views import Explanation
from gptjax.generation.rules import Rules

MOST_BYTES = 3_000_000  # without the model, which takes 2.7 for each of its parameters
FRAME_BYTES = 80_000  # about what the page has besides its data
SCRIPTS = (
    'base',
    'text',
    'heads',
    'layers',
    'rest',
    'across',
    'model',
    'own',
    'start',
)  # one script, in this order
NO_LAYERS = (
    'This model has no attention to show: a bigram model is a table, and a generator that is not '
    'causal computes all places anew for each word.'
)
NO_LENS = (
    'The logit lens and the parts of a logit are made for language models: a translation reads a '
    'source besides, and a GAN draws words by other means.'
)
NO_TEXT = 'The training text is not in the cache, so it was not searched.'
POSITIONS = {
    'learned': 'Each position has a learned vector, which is added to the token: a row each.',
    'sinusoidal': 'Sine and cosine in turns are added to the token: a row for each position. The '
    'frequency falls with the dimension.',
    'rotary': 'Rotary positions add nothing to a token: queries and keys are turned by an angle '
    'that grows with the position, so a score depends on the distance alone. A row has the sine '
    'and cosine of the angles at a position.',
    'none': 'Nothing is added for a position: only the causal mask tells the order.',
}


@dataclasses.dataclass(frozen=True)
class Explained:
    """An explanation, and what the page says of the model besides."""

    title: str
    model: str  # in some words
    summary: str  # in a sentence or two
    vocab_size: int
    sizes: list[Size]
    numbers: Explanation
    live: Live | None = None  # the model, for the page to explain other texts
    not_live: str = ''  # why there is none, if the page should say it

    def to_json(self) -> str:
        """The numbers of the page as one JSON object."""
        return json.dumps(self.numbers, default=_plain)

    def to_html(self) -> str:
        """The page, with its style, script and data in it."""
        numbers = self.numbers
        data, left_out = _packed(numbers)
        data['live'] = self.live and vars(self.live) | {
            'weights': {name: _half(array) for name, array in self.live.weights.items()}
        }
        return pages.render(
            *('gptjax.explain', 'page'),
            scripts=SCRIPTS,
            about=self,
            title=self.title,
            data=_for_script(data),
            numbers=numbers,
            has_attention=data['attention'] is not None,
            has_picture=data['positions'] is not None,
            attention_error=max((kind.error for kind in numbers['attention'] or ()), default=0.0),
            left_out=left_out,
            masked=_masked(numbers['attention']),
            copying_error=_copying_error(numbers['copying']),
            no_layers=NO_LAYERS,
            no_lens=NO_LENS,
            no_text=NO_TEXT,
            positions=POSITIONS,
        )


def _packed(numbers: Explanation) -> tuple[dict[str, Any], str]:
    """What the script reads, and a sentence about what the size of the page left out."""
    data = {**numbers, 'rules_shown': _rules_in_use(numbers['rules']), 'positions': None}
    positions, parts = numbers['positions'], numbers['parts']
    if positions is not None and positions['table'] is not None:
        data['positions'] = _half(positions['table'])
    if numbers['style'] is not None:
        data['style'] = _half(numbers['style'])
    if numbers['attention'] is None:
        return data, ''
    if parts is not None:
        data['parts'] = parts | {'logits': _half(parts['logits'].reshape(len(parts['names']), -1))}
    space = MOST_BYTES - FRAME_BYTES - len(_for_script({**data, 'attention': None}))
    kinds = numbers['attention']
    pictures = [[_picture(layer, kind) for layer in kind.layers] for kind in kinds]
    walks = [[_walk(layer) for layer in kind.layers] for kind in kinds]
    count = max(len(kind.layers) for kind in kinds)
    # All kinds keep the same layers.
    size, walk_size = (len(json.dumps([kind[0] for kind in x])) for x in (pictures, walks))
    with_picture = _spread(count, space // size)
    with_walk = _spread(count, (space - size * len(with_picture)) // walk_size)
    with_walk = [i for i in with_walk if i in with_picture]
    left_out = _left_out(count, with_picture, with_walk)
    if not with_picture:
        return data | {'attention': None}, left_out
    data['attention'] = [
        {
            'name': kind.name,
            'rows': kind.rows,
            'columns': kind.columns,
            'layers': [
                pictures[k][i] | (walks[k][i] if i in with_walk else {})
                if i in with_picture
                else None
                for i in range(len(kind.layers))
            ],
        }
        for k, kind in enumerate(kinds)
    ]
    return data, left_out


def _masked(kinds: list[Attention] | None) -> float | None:
    """The largest weight of a later token; None where no attention is causal."""
    causal = [kind for kind in kinds or () if kind.rows == kind.columns == 'tokens']
    weights = [np.triu(layer.weights_NTS, 1) for kind in causal for layer in kind.layers]
    return float(max(x.max() for x in weights)) if weights else None


def _copying_error(copying: dict[str, Any] | None) -> float:
    """How far the weights of a pointer are from summing to 1, at most."""
    return float(np.abs(np.sum(copying['weights'], -1) - 1).max()) if copying else 0.0


def _picture(heads: Heads, kind: Attention) -> dict[str, Any]:
    causal = kind.rows == kind.columns == 'tokens'
    packed = (_triangle if causal else _square)(heads.weights_NTS)
    return {'weights': packed, 'value_norms': _half(heads.value_norms_NS)}


def _walk(heads: Heads) -> dict[str, Any]:
    named = {'queries': heads.q_NTH, 'keys': heads.k_NSH, 'values': heads.v_NSH}
    return {name: _half(array) for name, array in named.items()}


def _left_out(count: int, with_picture: list[int], with_walk: list[int]) -> str:
    """Which of the layers are there, if it is not all of them."""
    if len(with_walk) == count:
        return ''
    pictures, walks = (', '.join(map(str, found)) for found in (with_picture, with_walk))
    return (
        f'To keep the page small, it has pictures of the layers {pictures or "(none)"} of {count}, '
        f'and queries, keys and values of the layers {walks or "(none)"}.'
    )


def _spread(count: int, room: int) -> list[int]:
    """At most `room` of `count` layers, evenly spread, the last one among them."""
    room = max(0, min(count, room))
    return sorted({count - 1 - i * count // room for i in range(room)})


def _rules_in_use(rules: dict[str, float]) -> dict[str, float]:
    neutral = dataclasses.asdict(Rules())
    return {name: value for name, value in rules.items() if value != neutral[name]}


def _half(array: np.ndarray) -> dict[str, Any]:
    """Half-precision floats."""
    return _pack('half', array.shape, array.astype('<f2'))


def _triangle(weights_NTT: np.ndarray) -> dict[str, Any]:
    """The lower triangles of weights from 0 to 1, a byte each."""
    rows, columns = np.tril_indices(weights_NTT.shape[-1])
    return _pack('triangle', weights_NTT.shape, _bytes(weights_NTT[:, rows, columns]))


def _square(weights_NTS: np.ndarray) -> dict[str, Any]:
    """All weights from 0 to 1, a byte each."""
    return _pack('square', weights_NTS.shape, _bytes(weights_NTS))


def _bytes(weights: np.ndarray) -> np.ndarray:
    return np.rint(255 * weights).astype(np.uint8)


def _pack(kind: str, shape: tuple[int, ...], array: np.ndarray) -> dict[str, Any]:
    return {'type': kind, 'shape': shape, 'data': base64.b64encode(array.tobytes()).decode()}


def _for_script(data: dict[str, Any]) -> str:
    """JSON that can stand in a script element, whatever the strings in it are."""
    return jinja2.utils.htmlsafe_json_dumps(data, dumps=_dumps)


def _dumps(data: Any, **_: Any) -> str:
    return json.dumps(data, default=_plain, separators=(',', ':'), allow_nan=False)


def _plain(value: Any) -> Any:
    """Arrays as lists, of numbers with five significant digits."""
    if isinstance(value, np.ndarray) and value.dtype.kind == 'f':
        return [float(f'{x:.5g}') for x in value] if value.ndim == 1 else list(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if dataclasses.is_dataclass(value):
        return vars(value)
    raise TypeError(f'{type(value).__name__} has no JSON form')
