"""Starting from the parameters of another run: which configuration fits, and what is cropped."""

import dataclasses
from pathlib import Path

from gptjax import run_files
from gptjax.config import Config, ModelConfig
from gptjax.errors import UserError
from gptjax.text import run_data
from gptjax.text.tokenizers import Tokenizer

# What may differ from the model that is started from; everything else is its architecture.
FREE = ('dropout', 'dtype', 'attention', 'block_size')
TEXT = ('tokenizer', 'normalize', 'lowercase')


def adopt(config: Config) -> tuple[Config, Tokenizer]:
    """The configuration with the architecture and the tokens of the model it starts from.

    Raises:
      UserError: there is no such run, or its positions are too few.
    """
    workdir = Path(config.train.init_from)
    source, tokenizer = run_files.load_config(workdir), run_data.load(workdir).tokenizer
    if source.model.position == 'learned' and config.model.block_size > source.model.block_size:
        raise UserError(
            f'model.block_size={config.model.block_size} is longer than the '
            f'{source.model.block_size} positions that {workdir} has learned; '
            f'use model.block_size={source.model.block_size} or less'
        )
    free = {name: getattr(config.model, name) for name in FREE}
    text = {name: getattr(source.data, name) for name in TEXT}
    model = dataclasses.replace(source.model, **free)
    data = dataclasses.replace(config.data, **text)
    return dataclasses.replace(config, model=model, data=data), tokenizer


def crop_positions(variables: dict, model: ModelConfig) -> dict:
    """Variables with no more learned positions than the model has."""
    params = variables['params']
    if 'embed_pos' in params:
        table = params['embed_pos']['embedding'][: model.block_size]
        params = params | {'embed_pos': {'embedding': table}}
    return variables | {'params': params}
