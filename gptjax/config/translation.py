"""Knobs of translation: pairs of texts, and what an encoder adds to the model."""

import dataclasses

from gptjax.config.schema import check_bounds, knob
from gptjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TranslationConfig:
    """What a task with pairs has besides the decoder's model, the text and the training."""

    target_path: str = knob('', 'lines aligned with those of data.path; empty: that has both, TSV')
    val_target_path: str = knob('', 'lines aligned with those of data.val_path; empty: TSV')
    shared_vocab: bool = knob(True, 'one vocabulary and one embedding for both languages')
    n_encoder_layer: int = knob(0, 'blocks of the encoder; 0: model.n_layer', low=0, high=1000)
    copy: bool = knob(False, 'an output may also be a source token that is pointed at')
    buckets: int = knob(8, 'shapes of batches: more of them pad less and compile longer', low=1)
    label_smoothing: float = knob(0.0, 'share of each target spread evenly', low=0.0, below=1.0)

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.copy and not self.shared_vocab:
            raise UserError(
                'translation.copy=True needs one vocabulary for both languages; '
                'add translation.shared_vocab=True'
            )
