"""What tasks share: usual answers, and refusing knobs that have no effect."""

import dataclasses
import importlib
from pathlib import Path

import pytest

from gptjax import tasks
from gptjax.config import Config, from_config_dict
from gptjax.config.schema import flatten
from gptjax.errors import UserError
from gptjax.tasks.base import BaseTask
from tests.test_configs import ARGUMENTS, GANS, PAIRS

CLASSES = {name: tasks._class(Config(task=name)) for name in tasks.TASKS}
READS = Path(__file__).with_name('reads.txt')  # each knob, and the tasks that read it
SECTIONS = [name for name, _ in flatten(Config()) if '.' in name]


def other_value(name):
    """A value of a knob that is not its default."""
    section, knob = name.split('.')
    value = getattr(getattr(Config(), section), knob)
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        choices = getattr(Config(), section).__dataclass_fields__[knob].metadata['choices']
        return next(c for c in choices if c != value) if choices else 'other'
    if isinstance(value, tuple):
        return (*value, 'other')
    return value * 2 + 1


@pytest.mark.parametrize('name', SECTIONS)
def test_each_knob_is_read_by_a_task_and_refused_by_all_others(name):
    section, knob = name.split('.')
    readers = [task for task, cls in CLASSES.items() if name in cls.reads]
    assert readers
    for task, cls in CLASSES.items():
        config = Config(task=task)
        values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        # Not dataclasses.replace: checks between knobs are not what is tested.
        part = object.__new__(type(values[section]))
        part.__dict__.update({**values[section].__dict__, knob: other_value(name)})
        config.__dict__[section] = part
        if task in readers:
            tasks.refuse_unread(config, cls.reads)
        else:
            with pytest.raises(UserError, match=f'{name}=.* has no effect with task={task}; leave'):
                tasks.refuse_unread(config, cls.reads)


def test_somebody_decided_which_task_reads_which_knob():
    """A prefix in `reads` takes in new knobs by itself: whether a task uses one, a person says."""
    lines = READS.read_text().splitlines()
    decided = {name: set(readers.split()) for name, readers in (line.split(':') for line in lines)}
    accepted = {name: {t for t, cls in CLASSES.items() if name in cls.reads} for name in SECTIONS}
    assert accepted == decided, (
        'where a task does not use a knob, add it to UNREAD; then edit READS'
    )


@pytest.mark.parametrize('recipe', [*ARGUMENTS, *PAIRS, *GANS])
def test_recipes_set_only_knobs_that_their_task_reads(recipe):
    module = importlib.import_module(f'configs.{recipe}')
    for argument in {**ARGUMENTS, **PAIRS, **GANS}[recipe]:
        config = from_config_dict(module.get_config(*filter(None, [argument])))
        tasks.refuse_unread(config, CLASSES[config.task].reads)


def test_an_unknown_task_is_one_line():
    with pytest.raises(UserError, match=r"task='gna' is unknown; did you mean gan\?"):
        tasks.create(Config(task='gna'), print)


def test_a_task_with_its_own_text_alone_refuses_another():
    class Own(BaseTask):
        config = Config(task='gan')

    with pytest.raises(UserError, match=r'path=x\.txt is not the text of this run, and tas'):
        Own().with_text(Path('x.txt'))


def test_empty_prompts_stand_for_a_beginning():
    assert BaseTask().prompts(()) == ('',)
    assert BaseTask().prompts(('', 'a', '')) == ('a',)
