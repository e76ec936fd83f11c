"""What tasks share: knobs and questions that mean nothing to some of them."""

import dataclasses
from pathlib import Path

import pytest

from gptjax.config import Config, TrainConfig
from gptjax.errors import UserError
from gptjax.tasks.base import BaseTask
from gptjax.tasks.unused import require_default


def test_knobs_without_effect_are_refused():
    config = dataclasses.replace(Config(task='translation'), train=TrainConfig(logits_chunk=7))
    require_default(config, 'train.lora_rank')
    with pytest.raises(
        UserError, match='logits_chunk=7 means nothing to task=translation; leave it at 0'
    ):
        require_default(config, 'train.lora_rank', 'train.logits_chunk')


def test_a_task_with_its_own_text_alone_refuses_another():
    class Own(BaseTask):
        config = Config(task='gan')

    with pytest.raises(UserError, match=r'path=x\.txt is not the text of this run, and tas'):
        Own().with_text(Path('x.txt'))


def test_empty_prompts_stand_for_a_beginning():
    assert BaseTask().usable_prompts(()) == ('',)
    assert BaseTask().usable_prompts(('', 'a', '')) == ('a',)
