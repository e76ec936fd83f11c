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
from gptjax.config.gan import GanConfig, GanUseConfig
from gptjax.config.model import ModelConfig
from gptjax.config.sample import BenchConfig, SampleConfig
from gptjax.config.schema import build, check_bounds, knob
from gptjax.config.train import MeshConfig, TrainConfig
from gptjax.config.translation import TranslationConfig
from gptjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration of a run; hashable, and the content of config.json."""

    name: str = knob('custom', 'of the recipe, for messages')
    task: str = knob(
        'language_model', 'what is learnt', choices=('language_model', 'translation', 'gan')
    )
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    translation: TranslationConfig = TranslationConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    mesh: MeshConfig = MeshConfig()
    bench: BenchConfig = BenchConfig()
    gan: GanConfig = GanConfig()
    ganuse: GanUseConfig = GanUseConfig()

    def __post_init__(self):
        check_bounds(self)


def default_config() -> ml_collections.ConfigDict:
    """All knobs at their defaults, for a config file to override."""
    return ml_collections.ConfigDict(dataclasses.asdict(Config()))


def from_config_dict(values: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
    """The dataclass of a ConfigDict or of parsed JSON; what is not there has its default.

    Raises:
      UserError: a key is unknown or of the wrong type, or a value is out of bounds.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    if not isinstance(values, Mapping):
        raise UserError(
            f'a configuration is a ConfigDict or a mapping, not {values!r}; '
            'let get_config() return what default_config() gave, with its changes'
        )
    return build(Config, values, '')


def with_use(trained: Config, asked: Config) -> Config:
    """The configuration of a trained run, with the sections of another that say how to use it."""
    return dataclasses.replace(trained, sample=asked.sample, ganuse=asked.ganuse)


def to_json(config: Config) -> str:
    """The configuration as JSON text; `from_json` is its inverse."""
    return json.dumps(dataclasses.asdict(config), indent=2) + '\n'


def from_json(text: str) -> Config:
    """See `to_json`; raises UserError as `from_config_dict` does."""
    return from_config_dict(json.loads(text))
