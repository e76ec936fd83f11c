"""Settings of translation: pairs of texts and the encoder."""

import dataclasses

from gptjax.config.schema import Section, knob
from gptjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TranslationConfig(Section):
    """What translation needs besides the settings of model, data and training."""

    target_path: str = knob(
        '', 'target lines aligned with data.path; empty: data.path is TSV with both'
    )
    val_target_path: str = knob(
        '', 'target lines aligned with data.val_path; empty: data.val_path is TSV'
    )
    shared_vocab: bool = knob(True, 'one vocabulary and one embedding for both languages')
    n_encoder_layer: int = knob(0, 'encoder blocks; 0: model.n_layer', low=0, high=1000)
    copy: bool = knob(False, 'pointer that copies source tokens')
    buckets: int = knob(8, 'batch shapes; more of them pad less and compile longer', low=1)
    label_smoothing: float = knob(0.0, 'share of each target spread evenly', low=0.0, below=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.copy and not self.shared_vocab:
            raise UserError(
                'translation.copy=True needs one vocabulary for both languages; '
                'add translation.shared_vocab=True'
            )
