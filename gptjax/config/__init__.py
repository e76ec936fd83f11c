"""Every knob of gptjax, once: its name, type, default, bound and meaning.

Config files (`configs/*.py`) start from `default_config()` and override a few knobs; the command
line overrides more (`--config.model.n_layer=6`). `from_config_dict` turns the result into the
frozen dataclasses of this package, which are all that the rest of the package ever sees.

Nothing here imports JAX, so that a mistake is reported before anything heavy is loaded.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import ml_collections

from gptjax.config.data import DataConfig
from gptjax.config.gan import GanConfig, GanSamplingConfig
from gptjax.config.model import ModelConfig
from gptjax.config.plan import PlanConfig
from gptjax.config.sample import BenchConfig, SampleConfig
from gptjax.config.schema import Section, build, knob
from gptjax.config.train import MeshConfig, TrainConfig
from gptjax.config.translation import TranslationConfig
from gptjax.errors import UserError

# Sections that say how and where a trained model is used: of a command, not of the run.
USE = ('sample', 'gan_sampling', 'mesh')


@dataclasses.dataclass(frozen=True)
class Config(Section):
    """The whole configuration of a run; hashable, and the content of config.json."""

    name: str = knob('custom', 'name of the recipe, shown in messages')
    task: str = knob('language_model', 'task to train, a name from gptjax.tasks.TASKS')
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    translation: TranslationConfig = dataclasses.field(default_factory=TranslationConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    sample: SampleConfig = dataclasses.field(default_factory=SampleConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    bench: BenchConfig = dataclasses.field(default_factory=BenchConfig)
    plan: PlanConfig = dataclasses.field(default_factory=PlanConfig)
    gan: GanConfig = dataclasses.field(default_factory=GanConfig)
    gan_sampling: GanSamplingConfig = dataclasses.field(default_factory=GanSamplingConfig)


def default_config() -> ml_collections.ConfigDict:
    """All knobs at their defaults, for a config file to override."""
    return ml_collections.ConfigDict(dataclasses.asdict(Config()))


def from_config_dict(values: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
    """The dataclass of a ConfigDict or of parsed JSON; what is not there has its default.

    Raises UserError if a key is unknown or of the wrong type, or a value is out of bounds.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    if not isinstance(values, Mapping):
        raise UserError(
            f'a configuration is a ConfigDict or a mapping, not {values!r}; '
            'let get_config() return what default_config() gave, with its changes'
        )
    return build(Config, values)


def with_use(trained: Config, asked: Config) -> Config:
    """The configuration of a trained run, used as another configuration says."""
    return dataclasses.replace(trained, **{section: getattr(asked, section) for section in USE})


def to_json(config: Config) -> str:
    """The configuration as JSON text; `from_json` is its inverse."""
    return json.dumps(dataclasses.asdict(config), indent=2) + '\n'


def from_json(text: str) -> Config:
    """See `to_json`; raises UserError as `from_config_dict` does."""
    values = json.loads(text)
    if isinstance(values, dict) and 'ganuse' in values:  # Its name in version 0.1.0.
        values['gan_sampling'] = values.pop('ganuse')
    return from_config_dict(values)
