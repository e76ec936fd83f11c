"""Every mode with every task answers, or refuses in one line; a fourth task needs one line."""

import dataclasses
import json
import shutil

import pytest

import gptjax
from gptjax import cli, tasks
from gptjax.config import Config
from gptjax.errors import UserError
from gptjax.modes import data, evaluate, sample, train
from gptjax.modes.request import Request
from gptjax.run import Run
from tests.conftest import ROOT, replace, run_main, unpack_golden

RECIPES = {
    'language_model': ('char', 'configs/char.py:small', []),
    'translation': ('translation', 'configs/translate.py:small', ['--config.data.tokenizer=char']),
    'gan': ('gan', 'configs/gan.py:toy', []),
}
# What a mode says of a task that it does not serve.
REFUSALS = {
    ('bench', 'translation'): '--mode=bench compares language models, and translate:small is a',
    ('bench', 'gan'): '--mode=bench compares language models, and gan:toy is a gan',
    ('plan', 'translation'): '--mode=plan is for task=language_model, and translate:small is a',
    ('plan', 'gan'): '--mode=plan is for task=language_model, and gan:toy is a gan',
    ('export', 'translation'): 'GPT-2 cannot express task=translation; only a language model',
    ('export', 'gan'): 'GPT-2 cannot express task=gan; only a language model',
    ('export', 'language_model'): 'GPT-2 cannot express model.',
    **{('import', task): '--mode=import needs --source=DIR' for task in RECIPES},
}
SLOW = {('train', 'gan'), ('bench', 'language_model')}  # These compile for a minute.


def test_each_task_is_in_the_table_above():
    assert RECIPES.keys() == tasks.TASKS.keys()


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """A folder with a text for each task and the golden work directories."""
    folder = unpack_golden(tmp_path_factory.mktemp('home'), 'char', 'translation', 'gan')
    (folder / 'char.txt').write_text('To be, or not to be, that is the question.\n' * 30)
    (folder / 'translation.txt').write_text(
        ''.join(f'{"ab" * n}\t{"ba" * n}\n' for n in range(1, 8))
    )
    shutil.copy(ROOT / 'data' / 'toy_language.txt', folder / 'gan.txt')
    return folder


@pytest.mark.parametrize(
    ('mode', 'task'),
    [
        pytest.param(mode, task, marks=[pytest.mark.slow] * ((mode, task) in SLOW))
        for mode in cli.MODES
        if mode != 'serve'  # It does not end; see tests/serve/test_command.py.
        for task in RECIPES
    ],
)
def test_every_mode_with_every_task_answers_or_refuses_in_one_line(home, mode, task):
    run, recipe, more = RECIPES[task]
    flags = [f'--config={ROOT / recipe}', f'--mode={mode}', *more]
    if mode in ('sample', 'eval', 'explain', 'report', 'export'):
        flags += [f'--workdir={run}', '--target=out'] if mode == 'export' else [f'--workdir={run}']
    else:
        flags += [f'--workdir=new-{mode}-{run}', f'--config.data.path={run}.txt']
        flags += ['--config.data.cache_dir=cache', '--config.model.n_embd=16']
        flags += ['--config.train.steps=2', '--config.model.block_size=16']
        flags += ['--config.bench.rounds=2', '--config.bench.turn_s=0.1'] * (mode == 'bench')
    if mode == 'eval' and task == 'gan':
        flags += ['--config.data.path=toy_language.txt', '--config.gan_sampling.samples=20']
    done = run_main(*flags, cwd=home, timeout=1200)
    assert 'Traceback' not in done.stderr
    if (mode, task) in REFUSALS:
        assert done.returncode == 1, done.stderr
        assert REFUSALS[mode, task] in done.stderr.splitlines()[-1]
        assert done.stdout == ''
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() or (home / run / f'{mode}.html').exists()


def test_data_is_shown_as_json_for_every_task(home, capsys):
    for task, (run, _, _) in RECIPES.items():
        config = Run.open(home / run).config
        texts = {'path': str(home / f'{run}.txt'), 'cache_dir': str(home / 'cache')}
        config = dataclasses.replace(replace(config, data=texts), task=task)
        request = Request(config=config, workdir=home / 'none', as_json=True)
        assert data.run(request) == 0
        figures = json.loads(capsys.readouterr().out)
        assert any(name.startswith('train_') for name in figures)


def test_a_fourth_task_is_one_line_in_the_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(tasks.TASKS, 'mean', 'tests.tasks.fourth:Mean')
    knobs = {'steps': 30, 'batch_size': 8, 'learning_rate': 0.05, 'schedule': 'constant'}
    config = replace(Config(name='mean', task='mean'), train={**knobs, 'grad_clip': 0.0})
    request = Request(config=config, workdir=tmp_path / 'run')
    assert data.run(request) == 0
    assert train.run(request) == 0
    more = dataclasses.replace(request, config=replace(config, train={'steps': 200}))
    assert train.run(more) == 0
    assert evaluate.run(request) == sample.run(request) == 0
    assert (tmp_path / 'run' / 'loss.png').exists()
    found = gptjax.load(tmp_path / 'run')
    assert found.step == 200
    assert abs(float(found.params['mean']) - 1.09) < 0.05  # The mean of the bytes of 'gptjax'.
    monkeypatch.setitem(tasks.TASKS, 'average', 'tests.tasks.fourth:Mean')
    with pytest.raises(UserError, match=r'cannot be continued: task was mean and is average\. Use'):
        train.run(
            dataclasses.replace(more, config=dataclasses.replace(more.config, task='average'))
        )
    with pytest.raises(UserError, match='there is no explanation of task=mean'):
        found.explain()
    assert found.generate('') == f'{float(found.params["mean"]):.2f}'
    with pytest.raises(UserError, match=r'sample\.top_k=3 has no effect with task=mean'):
        found.generate('', top_k=3)
    with pytest.raises(UserError, match=r'model\.n_layer=9 has no effect with task=mean'):
        tasks.create(replace(config, model={'n_layer': 9}), print)


EXPECTED_HEADINGS = {
    'char': '--- 1 of 2 ---\nROMEO:',
    'gan': '--- 1 of 2 ---\nthe',
    'translation': '',
}


@pytest.mark.parametrize('name', EXPECTED_HEADINGS)
def test_rows_are_printed_in_order_and_whole(home, capsys, name):
    run = Run.open(home / name)
    prompt = {'char': 'ROMEO:', 'gan': 'the', 'translation': 'abab c'}[name]
    sampling = {'num_samples': 2, 'max_new_tokens': 12, 'temperature': 0.9}
    texts = run.generate([prompt], **sampling)
    prompts = [prompt] * 2
    sample.show(run.task, prompts, run.stream([prompt], **sampling), given=True)
    out = capsys.readouterr().out
    assert out.startswith(EXPECTED_HEADINGS[name])
    lines = [run.task.heading(prompt, number=i + 1, count=2, given=True) for i in range(2)]
    assert out == ''.join(f'{line}{text}\n' for line, text in zip(lines, texts, strict=True))
