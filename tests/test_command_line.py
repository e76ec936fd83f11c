"""The command line: every mistake is one line on standard error, with the right status, at once."""

import ast
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from gptjax import command_line
from gptjax.errors import UserError
from tests.conftest import ROOT, one_line, run_main

CHAR = '--config=configs/char.py:small'
OWN_TEXT = '--config.data.path=README.md'  # A corpus would be fetched first, with a line about it.


def test_help_answers_in_under_a_second_and_loads_nothing_heavy():
    began = time.monotonic()
    done = run_main('--help')
    assert time.monotonic() - began < 1.0
    assert done.returncode == 0
    modes = 'train|sample|eval|data|explain|report|serve|bench|plan|import|export'
    assert f'<{modes}>' in ''.join(done.stdout.split())
    program = (
        'import sys, gptjax.cli; print([m for m in ("jax", "flax", "orbax") if m in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == '[]'


@pytest.mark.parametrize(
    ('args', 'status', 'message'),
    [
        ([], 2, '--config is missing; try --config=configs/char.py'),
        (['--config=configs/cha.py'], 2, 'cha.py is not a file .*; did you mean configs/char.py'),
        (['--config=configs'], 2, 'configs is not a file that can be read'),
        (['--mode=train', '--config'], 2, '--config is missing'),
        ([CHAR, '--mode=train', '--workdir=README.md'], 1, 'workdir=README.md is a file; give'),
        (['--config', 'zzz'], 2, 'zzz is not a file .* known are char, bigram, '),
        (['--config=configs/char.py:huge'], 2, 'char.py:huge is unknown; use :small, :laptop or'),
        (['--config=configs/char_nanogpt.py'], 2, 'is unknown; use :cpu or :gpu'),
        (['--config=cha:small'], 2, 'cha is not a file .* nor a built-in recipe; did you mean cha'),
        (['--config=char:huge'], 2, 'char.py:huge is unknown; use :small, :laptop or'),
        (['--flagfile=none'], 2, "main.py: cannot read the file of --flagfile .*'none'"),
        (['--flagfile'], 2, '--flagfile with no argument'),
        (['--flagfile=data'], 2, 'cannot read the file of --flagfile .*Is a directory'),
        (['--flagfile=docs/gan_toy.png'], 2, 'the file of --flagfile is no text; give a flag a li'),
        (
            [CHAR, '--config.model.nlayer=3'],
            2,
            'main.py: unknown setting --config.model.nlayer; did you mean --config.model.n_layer',
        ),
        (
            [CHAR, '--config.n_layer=3'],
            2,
            'unknown setting .*; did you mean --config.model.n_layer',
        ),
        ([CHAR, '--config.model.n_layer=x'], 2, "n_layer=x: invalid literal for int.*'x'"),
        ([CHAR, '--config.model.bias=perhaps'], 2, 'bias=perhaps: '),
        ([CHAR, '--config.train.learning_rate=fast'], 2, 'learning_rate=fast: could not convert'),
        ([CHAR, '--config.=3'], 2, 'unknown setting --config.;'),
        ([CHAR, '--workdir='], 1, "--workdir='' is no usable name; give a folder"),
        ([CHAR, '--workdir=a\udcffb'], 1, 'is no usable name; give a folder'),
        (
            [CHAR, '--mode=fly'],
            2,
            '--mode=fly: value should be one of <train|sample|eval|data|explain|report|',
        ),
        ([CHAR, '--wokdir=x'], 2, "Unknown command line flag 'wokdir'. Did you mean: workdir"),
        ([CHAR, 'train'], 1, "unexpected argument 'train'; options begin with --"),
        ([CHAR, '--config.model.n_embd=130'], 1, 'n_head=4; try --config.model.n_embd=132'),
        ([CHAR, '--config.model.n_layer=-2'], 1, 'model.n_layer=-2 must be at least 1'),
        ([CHAR, '--config.sample.temperature=-1'], 1, 'temperature=-1.0 must be at least 0'),
        ([CHAR, '--mode=sample', '--prompt_file=none'], 1, 'cannot read --prompt_file=none: No su'),
        (['--config.train.steps=0', CHAR], 1, 'train.steps=0 must be at least 1'),
        (
            [CHAR, '--mode=sample', '--workdir=zz'],
            1,
            'no trained model in zz; train it first: pyth',
        ),
        ([CHAR, '--mode=eval', '--workdir=zz'], 1, 'no trained model in zz; train it first: .*zz'),
        ([CHAR, '--config.data.path=none.txt'], 1, 'cannot read none.txt .No such file'),
        ([CHAR, '--config.data.corpus=x'], 1, "data.corpus='x' is unknown; known are shakes"),
        (
            [CHAR, OWN_TEXT, '--config.mesh.data=3'],
            1,
            'mesh.data=3 .* needs 3 devices, and there are 1',
        ),
    ],
)
def test_mistakes(args, status, message, tmp_path):
    done = run_main(*args)
    assert re.search(message.replace('|', r'\|'), one_line(done, status)), done.stderr
    assert done.stdout == ''


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('def get_config(', 'broken.py'),
        ('x = 1', 'get_config'),
        ('def get_config():\n  return None', 'is a ConfigDict or a mapping, not None'),
        ('import sys; sys.exit(7)', 'the config file called sys.exit()'),
        ('import nonexistent', "No module named 'nonexistent'"),
        (
            'from gptjax.config import default_config\n'
            'def get_config():\n  c = default_config()\n  c.model.nlayer = 3\n  return c',
            'unknown configuration key model.nlayer; did you mean model.n_layer',
        ),
        (
            'from gptjax.config import default_config\n'
            'def get_config():\n  c = default_config()\n  c.model.n_layer = "3"\n  return c',
            'n_layer',
        ),
    ],
)
def test_a_broken_config_file_is_one_line(content, message, tmp_path):
    path = tmp_path / 'broken.py'
    path.write_text(content)
    done = run_main(f'--config={path}')
    line = one_line(done, done.returncode)
    assert done.returncode in (1, 2)
    assert message in line


@pytest.mark.parametrize('closed', ['mine.py', '.'])
def test_an_unreadable_config_is_refused(tmp_path, closed):
    path = tmp_path / 'folder' / 'mine.py'
    path.parent.mkdir()
    path.write_text('')
    (path.parent / closed).chmod(0)
    if os.geteuid() == 0:  # Root reads everything: ask as somebody else.
        program = (
            f'import os, sys; sys.path.insert(0, {str(ROOT)!r})\n'
            'from gptjax import command_line; os.setuid(65534)\n'
            f'command_line.check_config_flags(["main.py", "--config={path}"])'
        )
        for folder in (tmp_path, *tmp_path.parents):
            if folder == tmp_path or folder.name.startswith(('pytest-', 'popen-')):
                folder.chmod(0o755)
        done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
        assert 'is not a file that can be read' in done.stderr
    else:
        with pytest.raises(UserError, match='is not a file that can be read'):
            command_line.check_config_flags(['main.py', f'--config={path}'])


def started(program, *args, cwd=ROOT):
    """The command line in a process whose name is `program`."""
    code = f'import sys; sys.argv[0] = {program!r}; from gptjax.cli import main; main()'
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', code, *args]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(('program', 'typed'), [('a/main.py', 'python main.py'), ('gptjax',) * 2])
def test_messages_and_commands_begin_with_how_the_program_was_started(program, typed, tmp_path):
    line = one_line(started(program, '--config=char:small', '--mode=sample', cwd=tmp_path), 1)
    assert line == (
        f'{typed.split()[-1]}: there is no trained model in runs/char-small; '
        f'train it first: {typed} --config=char:small --mode=train'
    )
    assert f'  {typed} --config=char --mode=train' in started(program, '--help').stdout


def test_outside_of_the_project_recipes_are_known_by_their_names(tmp_path):
    for config in ('configs/char.py', 'cha'):
        line = one_line(started('gptjax', f'--config={config}', cwd=tmp_path), 2)
        assert f'gptjax: --config={config} is not a file that can be read' in line
        assert line.endswith('did you mean char?')
    assert one_line(started('gptjax', cwd=tmp_path), 2).endswith('try --config=char')


def test_a_file_of_ones_own_comes_before_a_recipe_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ['gptjax', '--config=char:small']
    recipe = f'--config={ROOT / "configs" / "char.py"}:small'
    assert command_line.check_config_flags(argv) == ['gptjax', recipe]
    (tmp_path / 'char').write_text('')
    assert command_line.check_config_flags(argv) == argv


def test_a_flag_file_may_hold_the_config_and_its_overrides(tmp_path):
    path = tmp_path / 'flags'
    path.write_text('--config.train.steps=0\n# a comment\n--config=char:small\n')
    line = one_line(run_main(f'--flagfile={path}', '--mode=train'), 1)
    assert 'train.steps=0 must be at least 1' in line
    path.write_text(f'--config=char:small\n--workdir={tmp_path / "run"}\n')
    line = one_line(run_main('--flagfile', str(path), '--mode=sample'), 1)
    assert line.endswith(f'train it first: python main.py --flagfile {path} --mode=train')


def test_overrides_may_come_before_the_config():
    argv = ['main.py', '--config.train.steps=3', '--mode=eval', '--config', 'configs/char.py']
    expected = ['main.py', '--config=configs/char.py', '--config.train.steps=3', '--mode=eval']
    assert command_line.check_config_flags(argv) == expected


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        ('configs/char.py', 'runs/char'),
        ('configs/char.py:baby', 'runs/char-baby'),
        ('/else/where/mine.py:a', 'runs/mine-a'),
    ],
)
def test_default_workdirs(config, expected):
    assert command_line.default_workdir(config) == expected


def test_the_command_to_repeat_keeps_what_makes_the_run():
    argv = ['main.py', '--config=configs/char.py', '--config.train.steps=9', '--mode', 'train']
    argv += ['--workdir=my runs/a', '--prompt=x', '--prompt_file', '-', '--json']
    assert command_line.command_to_repeat(argv) == (
        "python main.py --config=configs/char.py --config.train.steps=9 '--workdir=my runs/a'"
    )


def test_of_several_configs_the_last_one_counts():
    argv = ['main.py', '--config=configs/none.py', '--json', '--config=configs/char.py:small']
    assert command_line.check_config_flags(argv) == [
        'main.py',
        '--config=configs/char.py:small',
        '--json',
    ]


@pytest.mark.parametrize(
    ('message', 'expected'),
    [
        ('model.n_embd=3 is odd; try model.n_embd=4', '; try --config.model.n_embd=4'),
        ('a; use train.steps=1, or translation.buckets=1', '; use --config.train.steps=1, or --co'),
        ('model.bias=2 must be at most 1; set model.bias accordingly', 'set --config.model.bias a'),
        ('a; set train.init_from=D and train.lora_targets', '=D and --config.train.lora_targets'),
        ('a; use --config.train.resume=auto', 'a; use --config.train.resume=auto'),
        ('unknown key model.x; did you mean model.bias', 'x; did you mean model.bias'),
        ('model.bias=1 has no remedy', 'model.bias=1 has no remedy'),
        ('a; edit my.model.bias=1 or model.bias.txt', 'a; edit my.model.bias=1 or model.bias.txt'),
    ],
)
def test_the_remedy_of_a_message_gets_the_flags_to_type(message, expected):
    told = command_line.with_flags(message)
    assert expected in told
    assert told.startswith(message.partition('; ')[0])


def test_below_the_command_line_no_message_names_a_flag():
    above = ('modes', 'main.py', 'cli.py', 'command_line.py')
    for path in (ROOT / 'gptjax').rglob('*.py'):
        if path.relative_to(ROOT / 'gptjax').parts[0] in above:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                assert not re.search(r'--(config|mode|workdir|prompt)', ast.unparse(node)), path


def test_prompts_from_flags_and_a_file(tmp_path):
    path = tmp_path / 'prompts.txt'
    path.write_text('two\nthree\n')
    assert command_line.read_prompts(['one'], str(path)) == ('one', 'two', 'three')
    assert command_line.read_prompts(['one'], None) == ('one',)
    path.write_bytes('\ufefffour\r\n\n five\x0c\n'.encode())
    assert command_line.read_prompts([], str(path)) == ('four', '', ' five\x0c')
    path.write_text('\n')
    with pytest.raises(UserError, match='holds no prompt; write one on each line'):
        command_line.read_prompts([], str(path))
    path.write_bytes(b'ab\xff')
    with pytest.raises(UserError, match='is not UTF-8 at byte 2; convert it'):
        command_line.read_prompts([], str(path))


def test_ctrl_c_outside_training_is_quiet():
    program = 'import signal, time; from gptjax import cli, command_line\n'
    # A shell's background job ignores Ctrl-C, and so would all that it starts.
    program += 'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
    program += 'def wait(argv): print("ready", flush=True); time.sleep(60)\n'
    program += 'command_line.run(wait, cli.define_flags, "")'
    process = subprocess.Popen(
        [sys.executable, '-c', program, CHAR],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert 'Traceback' not in stderr


def test_a_work_directory_may_have_a_persian_name():
    command_line.check_workdir('runs/می\u200cخواهم')
