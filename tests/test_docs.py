"""The documentation names only what exists, and lists all modules, corpora and core files."""

import ast
import importlib.util
import re
import tarfile
import tomllib
from pathlib import Path

import pytest
from absl import flags

from gptjax import cli
from gptjax.config import Config, default_config
from gptjax.config.schema import flatten
from tests.conftest import ROOT
from tests.test_layers import PACKAGE, modules, tree_of

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
RECIPES = sorted((ROOT / 'configs').glob('*.py'))
KNOBS = {name for name, _ in flatten(Config())}
SECTIONS = {name.partition('.')[0] for name in KNOBS if '.' in name}
PREPOSITIONS = ('of', 'in', 'by', 'with', 'after', 'these')


def defined(path: Path) -> set[str]:
    """The functions, classes, methods and constants of a module."""
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def pages_and_heads() -> list:
    texts = [(path, path.read_text()) for path in PAGES]
    texts += [(path, ast.get_docstring(tree_of(path))) for path in RECIPES]
    return [pytest.param(text, id=str(path.relative_to(ROOT))) for path, text in texts]


def quoted(text: str) -> list[str]:
    """What stands in backticks, without blocks of code."""
    return re.findall(r'`([^`\n]+)`', re.sub(r'^```.*?^```', '', text, flags=re.S | re.M))


@pytest.mark.parametrize('text', pages_and_heads())
def test_flags_modes_and_settings_of_commands_exist(text):
    values = flags.FlagValues()
    cli.define_flags(values, ['main.py'])
    scripts = ''.join(path.read_text() for path in (ROOT / 'scripts').glob('*.py'))
    for flag in re.findall(r'(?<![\w-])--([a-z_]+)\b(?!\.)', text):
        known = flag in values or flag in flags.FLAGS or flag == 'flagfile'
        assert known or f"'--{flag}'" in scripts or f"'{flag}'" in scripts, flag
    for mode in re.findall(r'--mode=(\w+)', text):
        assert mode in cli.MODES
    for knob in re.findall(r'--config\.([\w.]*\w)', text):
        assert knob in KNOBS or knob in SECTIONS


@pytest.mark.parametrize('text', pages_and_heads())
def test_recipes_of_commands_exist_with_their_arguments(text):
    for value in re.findall(r'--config=([\w/.:]*\w)', text):
        name, _, argument = value.partition(':')
        if name in ('NAME', 'mine.py'):
            continue
        path = ROOT / name if name.endswith('.py') else ROOT / 'configs' / f'{name}.py'
        assert path in RECIPES, value
        if argument:
            spec = importlib.util.spec_from_file_location('recipe', path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            assert module.get_config(argument).keys() == default_config().keys()


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_linked_files_exist(page):
    for target in re.findall(r'\]\(([^)#]+)\)', page.read_text()):
        assert '://' in target or (page.parent / target).exists(), target


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_quoted_paths_settings_and_functions_exist(page):
    source = ''.join(path.read_text() for path in modules().values())
    stems = {name.rpartition('.')[2]: path for name, path in modules().items()}
    for word in quoted(page.read_text()):
        if re.fullmatch(
            r'(configs/)?[\w/.]+/|[\w/]+\.(py|toml|jsonl?|md|png|sh|csv|bin|html|css|js)', word
        ):
            homes = (ROOT, PACKAGE, ROOT / 'configs')
            assert any((home / word).exists() for home in homes) or (
                re.sub(r'/$', '', word).rpartition('/')[2] in source  # in a work directory
            ), word
        elif found := re.fullmatch(r'([a-z_]+)\.([a-z_]+)(\(.*\)|=.*)?', word):
            first, second, _ = found.groups()
            if first in SECTIONS and first not in stems:
                assert f'{first}.{second}' in KNOBS, word
            elif first in stems:
                known = f'{first}.{second}' in KNOBS or second in defined(stems[first])
                assert known or f'{first}.{second}' == 'run.py', word
        elif re.fullmatch(r'[A-Z]+(_[A-Z]+)+', word) and not word.startswith(('JAX_', 'XLA_')):
            assert re.search(rf'\b{word}\b', source), word
        elif re.fullmatch(r'gptjax(\.\w+)+', word):
            name = word.removeprefix('gptjax.')
            inside, _, last = name.rpartition('.')
            assert name in modules() or last in defined(modules()[inside]), word


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_lines_are_not_longer_than_120_characters(page):
    assert [line for line in page.read_text().splitlines() if len(line) > 120] == []


def test_the_readme_lists_the_built_in_corpora():
    corpora = tomllib.loads((PACKAGE / 'text' / 'corpora.toml').read_text())
    listed = re.search(r'Built-in corpora(.*?)\n\n', (ROOT / 'README.md').read_text(), re.S)[1]
    names = set(re.findall(r'`(\w+)`', listed))
    assert names == set(corpora)


def test_what_the_readme_says_where_to_find_is_there():
    rows = re.search(r'If you look for.*?\n\n', (ROOT / 'README.md').read_text(), re.S)[0]
    rows = rows.strip().splitlines()[2:]
    assert len(rows) == 8
    for row in rows:
        files = [ROOT / target for target in re.findall(r'\]\(([^)]+)\)', row)]
        names = {name for path in files for name in defined(path)}
        wanted = {part for word in re.findall(r'`([^`]+)`', row) for part in word.split('.')}
        assert wanted and wanted <= names, row


def test_the_reading_list_has_the_lines_that_it_says():
    readme = (ROOT / 'README.md').read_text()
    rows = re.findall(r'^\| \d+ \| \[(\S+)\]\((\S+)\) \| (\d+) \|', readme, re.M)
    files, lines = re.search(r'\[(\d+) files, about ([\d,]+) lines\]', readme).groups()
    assert len(rows) == int(files)
    counts = [len((ROOT / path).read_text().splitlines()) for _, path, _ in rows]
    for (name, path, said), count in zip(rows, counts, strict=True):
        assert path == f'gptjax/{name}'
        assert abs(count - int(said)) <= 5, f'{name} has {count} lines'
    assert abs(sum(counts) - int(lines.replace(',', ''))) <= 100


@pytest.mark.parametrize('page', ['README.md', 'docs/guide.md'])
def test_the_tables_of_modes_list_each_mode(page):
    table = re.search(r'^\| `--mode=` \|.*?\n\n', (ROOT / page).read_text(), re.S | re.M)[0]
    cells = [row.split('|')[1] for row in table.splitlines()[2:-1]]
    assert sorted(re.findall(r'`(\w+)`', ' '.join(cells))) == sorted(cli.MODES)


def test_the_map_lists_every_module_and_no_other():
    text = (ROOT / 'docs' / 'architecture.md').read_text()
    listed = re.findall(r'^\| `([\w/]+\.py)` \|', text, re.M)
    files = [path.relative_to(PACKAGE).as_posix() for path in modules().values()]
    assert len(set(listed)) == len(listed)
    assert set(listed) == {name for name in files if not name.endswith('__init__.py')}


def test_meanings_of_settings_make_sense_inside_an_error_line():
    for field in flatten_fields(Config):
        words = field.metadata['meaning'].split()
        assert words and words[0] not in PREPOSITIONS, field.name


def flatten_fields(section: type) -> list:
    found = []
    for field in section.__dataclass_fields__.values():
        inner = getattr(field.type, '__dataclass_fields__', None)
        found += flatten_fields(field.type) if inner else [field]
    return found


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    """A folder with a character model in runs/char and in runs/mine."""
    folder = tmp_path_factory.mktemp('docs')
    with tarfile.open(ROOT / 'tests' / 'golden' / 'char.tar.xz') as archive:
        archive.extractall(folder / 'runs', filter='data')
    (folder / 'runs' / 'mine').symlink_to('char')
    return folder


@pytest.mark.parametrize('page', ['README.md', 'docs/guide.md'])
def test_the_python_of_the_documentation_runs(page, trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    blocks = re.findall(r'^```python\n(.*?)^```', (ROOT / page).read_text(), re.S | re.M)
    # Those that ask a server are run in tests/serve/test_server.py.
    (code,) = (block for block in blocks if 'import openai' not in block)
    exec(compile(code, page, 'exec'), {})
    assert len(capsys.readouterr().out.splitlines()) >= code.count('print')


def test_the_picture_of_the_readme_is_small():
    assert (ROOT / 'docs' / 'loss.png').stat().st_size < 60_000
