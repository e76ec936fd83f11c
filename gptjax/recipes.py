"""The recipes that come with gptjax, by name."""

import runpy
from pathlib import Path

from gptjax.config import Config, from_config_dict
from gptjax.errors import UserError, nearest


def folder() -> Path:
    """The folder of the recipes: in the package, or beside it in a checkout."""
    packaged = Path(__file__).parent / 'configs'
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / 'configs'


def find(name: str) -> Config:
    """The configuration of a recipe, such as 'char:small'; raises UserError if there is none."""
    stem, _, argument = name.partition(':')
    path = folder() / f'{stem}.py'
    if not path.is_file():
        known = sorted(path.stem for path in folder().glob('*.py'))
        raise UserError(f'recipe {stem!r} is unknown; {nearest(stem, known)}')
    get_config = runpy.run_path(str(path))['get_config']
    return from_config_dict(get_config(*filter(None, [argument])))
