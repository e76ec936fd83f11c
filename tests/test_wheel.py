"""The wheel, in a fresh environment away from the project: command, recipes, data and Python."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, VERSE

pytestmark = pytest.mark.slow  # Installs JAX and the other dependencies.
FILES = ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE')


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: setuptools leaves its work in the folder that it builds."""
    folder = tmp_path_factory.mktemp('wheel')
    project = folder / 'project'
    for name in ('gptjax', 'configs'):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns('__pycache__'))
    (project / 'data').mkdir()
    for name in (*FILES, 'data/toy_language.txt'):
        shutil.copy(ROOT / name, project / name)
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--wheel-dir', folder, project]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob('gptjax-*.whl')
    return built


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """Runs a program of the environment from an empty folder; returns what it did."""
    folder = tmp_path_factory.mktemp('installed')
    subprocess.run([sys.executable, '-m', 'venv', folder / 'venv'], check=True)
    programs = folder / 'venv' / 'bin'
    # With PYTHONPATH set, pip would find the project there and install nothing.
    unwanted = ('PYTHONPATH', 'JAX_COMPILATION_CACHE_DIR')
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    install = [programs / 'pip', 'install', '-qq', wheel]
    subprocess.run(install, env=environment, check=True)
    (folder / 'empty').mkdir()
    (folder / 'verse.txt').write_text(VERSE * 20)
    environment |= {'XDG_CACHE_HOME': str(folder / 'cache'), 'JAX_NUM_CPU_DEVICES': '1'}

    def run(program: str, *args: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [programs / program, *args],
            cwd=folder / 'empty',
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    return folder, run


def test_the_wheel_has_the_recipes_the_tables_and_the_toy_text_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f'gptjax/configs/{path.name}' for path in (ROOT / 'configs').glob('*.py')}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / 'gptjax').rglob('*.py')}
    data = {'py.typed', 'text/corpora.toml', 'text/vocabularies.toml', 'data/toy_language.txt'}
    for folder in ('web', 'explain/web', 'report/web', 'serve/web'):
        data |= {f'{folder}/{path.name}' for path in (ROOT / 'gptjax' / folder).iterdir()}
    expected = recipes | modules | {f'gptjax/{name}' for name in data}
    assert {name for name in names if not name.startswith('gptjax-')} == expected


def test_an_installed_gptjax_trains_samples_and_can_be_imported_and_has_its_data(installed):
    folder, run = installed
    train = run(
        'gptjax',
        '--config=char',
        '--mode=train',
        f'--config.data.path={folder / "verse.txt"}',
        '--config.train.steps=20',
    )
    *_, command = train.stderr.splitlines()
    assert command.startswith('  gptjax --config=char --config.data.path=')
    assert command.endswith(' --mode=sample')
    assert len(train.stdout) > 300
    assert {path.name for path in (folder / 'cache' / 'gptjax').iterdir()} >= {'tokens', 'compiled'}
    assert {path.name for path in (folder / 'empty').iterdir()} == {'runs'}
    sample = run('gptjax', '--config=char', '--mode=sample', '--prompt=ROMEO:')
    assert sample.stdout.startswith('ROMEO:')
    program = (
        "import gptjax\nrun = gptjax.load('runs/char')\n"
        "text = run.generate('ROMEO:', max_new_tokens=20)\nassert isinstance(text, str) and text"
    )
    run('python', '-c', program)
    program = (
        'import runpy\nfrom pathlib import Path\n'
        'from gptjax.recipes import folder\n'
        "recipe = runpy.run_path(str(folder() / 'gan.py'))\n"
        "print(Path(recipe['get_config']('toy').data.path).read_text(), end='')"
    )
    toy = (ROOT / 'data' / 'toy_language.txt').read_text()
    assert run('python', '-c', program).stdout == toy
