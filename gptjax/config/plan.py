"""Settings of --mode=plan."""

import dataclasses

from gptjax.chips import CHIPS
from gptjax.config.schema import Section, knob


@dataclasses.dataclass(frozen=True)
class PlanConfig(Section):
    """The hardware that a training is planned for; it need not be there."""

    chip: str = knob(
        'h100', 'kind of device, from the table in gptjax/chips.py', choices=tuple(CHIPS)
    )
    devices: int = knob(1, 'number of devices', low=1, high=512)
