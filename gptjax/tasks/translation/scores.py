"""How near translations come to their references, as others measure it."""

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from gptjax.errors import UserError

EXAMPLES = 4  # shown with the figures


def require_sacrebleu() -> None:
    """Raises UserError if the package that scores is missing; a long run would end with that."""
    if importlib.util.find_spec('sacrebleu') is None:
        raise UserError(
            'translations are scored by sacrebleu, which is not installed; '
            "install it: pip install 'sacrebleu>=2.4'"
        )


def score(outputs: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU (Papineni et al., 2002) and chrF (Popović, 2015), 0 to 100, by sacrebleu's defaults;
    and exact_match, the share (0 to 1) of outputs that are their references.
    """
    require_sacrebleu()
    sacrebleu = importlib.import_module('sacrebleu')
    same = sum(a == b for a, b in zip(outputs, references, strict=True))
    return {
        'bleu': sacrebleu.corpus_bleu(outputs, [references]).score,
        'chrf': sacrebleu.corpus_chrf(outputs, [references]).score,
        'exact_match': same / len(references),
    }


def compare(
    sources: Sequence[str], references: Sequence[str], outputs: Sequence[str]
) -> dict[str, Any]:
    """The scores of the outputs, those of the sources as they are (`copy`), and examples."""
    chosen = np.linspace(0, len(sources) - 1, min(EXAMPLES, len(sources))).astype(int)
    shown = {'source': sources, 'reference': references, 'output': outputs}
    return {
        **score(outputs, references),
        'copy': score(sources, references),
        'examples': [{name: texts[i] for name, texts in shown.items()} for i in chosen],
    }


def describe(figures: dict[str, Any], n_pairs: int) -> str:
    """The figures of an evaluation as lines for people, the examples side by side."""
    line = '  BLEU {bleu:5.1f}   chrF {chrf:5.1f}   exact {exact_match:6.1%}'.format_map
    lines = [
        f'loss {figures["val_loss"]:.4f} nats per token, perplexity {figures["perplexity"]:.3f}, '
        f'over {figures["tokens"]:,} tokens of {n_pairs:,} pairs',
        line(figures),
        line(figures['copy']) + '   for a copy of the source',
    ]
    for example in figures['examples']:
        lines += ['', *(f'  {name:9} {text}' for name, text in example.items())]
    return '\n'.join(lines)
