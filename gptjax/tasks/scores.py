"""How near translations come to their references, as others measure it."""

import importlib
import importlib.util
from collections.abc import Sequence

from gptjax.errors import UserError


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
