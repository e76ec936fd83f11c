"""The recipes that come with gptjax, by name."""

import importlib.util
from pathlib import Path

from gptjax.config import Config, from_config_dict
from gptjax.errors import UserError, nearest


def folder() -> Path:
    """The folder of the recipes: in the package, or beside it in a checkout."""
    packaged = Path(__file__).parent / 'configs'
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / 'configs'


def find(name: str) -> Config:
    """The configuration of a recipe and its argument, such as 'char:small'.

    Raises:
      UserError: there is no such recipe.
    """
    stem, _, argument = name.partition(':')
    path = folder() / f'{stem}.py'
    if not path.is_file():
        known = sorted(path.stem for path in folder().glob('*.py'))
        raise UserError(f'recipe {stem!r} is unknown; {nearest(stem, known)}')
    spec = importlib.util.spec_from_file_location(f'gptjax_recipe_{stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return from_config_dict(module.get_config(*filter(None, [argument])))
