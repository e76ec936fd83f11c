"""How the modules depend on each other: in one direction, and the core on no task but its own."""

import ast
import functools
import re
from pathlib import Path

from tests.conftest import ROOT

PACKAGE = ROOT / 'gptjax'
# From the bottom to the top; a package stands for its modules.
LAYERS = (
    (
        'config',
        'errors',
        'chips',
        'files',
        'file_sums',
        'console',
        'extras',
        'interrupts',
        'thread_errors',
        'devices',
        'watchdog',
    ),
    ('text', 'models', 'parallel'),
    ('training', 'generation'),
    ('run_files', 'manifest', 'metrics_log', 'starts', 'pages', 'interop', 'explain', 'report'),
    ('tasks',),
    ('plan',),
    ('run', 'trainer', 'processes', 'trackers', 'progress', 'recipes'),
    ('serve',),
    ('modes',),
    ('command_line', 'cli'),
)
CORE = ('models', 'training', 'generation', 'parallel', 'tasks/language_model')


def core() -> list[Path]:
    return [path for folder in CORE for path in sorted((PACKAGE / folder).rglob('*.py'))]


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules() -> dict[str, Path]:
    """Dotted names below gptjax -> files; a package has the name of its folder."""
    found = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(PACKAGE).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


def imports(path: Path, *, types: bool = True) -> set[str]:
    """The modules of gptjax that a file imports anywhere in it, as dotted names below gptjax.

    Args:
      path: of the file.
      types: whether imports for type checkers alone, which are never run, count.
    """
    found, nodes = set(), [tree_of(path)]
    while nodes:
        node = nodes.pop()
        if types or not (isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING'):
            nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'gptjax':
            base = node.module.removeprefix('gptjax').removeprefix('.')
            for alias in node.names:
                inside = f'{base}.{alias.name}'.removeprefix('.')
                found.add(inside if inside in modules() else base)
        elif isinstance(node, ast.Import):
            found |= {alias.name[7:] for alias in node.names if alias.name.startswith('gptjax.')}
    return found - {''}


def test_no_module_imports_itself_over_others():
    graph = {name: imports(path, types=False) for name, path in modules().items() if name}
    while free := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in free:
            del graph[name]
    assert {name: sorted(others & graph.keys()) for name, others in graph.items()} == {}


def test_no_module_imports_upwards():
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    upwards = [
        f'{name} imports {other}'
        for name, path in modules().items()
        for other in imports(path)
        if name and level[name.partition('.')[0]] < level[other.partition('.')[0]]
    ]
    assert upwards == []


def test_the_language_model_imports_no_other_task():
    for name, path in modules().items():
        if name.startswith('tasks.language_model'):
            assert not [x for x in imports(path) if x.startswith(('tasks.gan', 'tasks.trans'))]


def test_the_core_knows_no_other_task():
    for path in core():
        assert not re.search(r'(?i)\b(gan|translation)s?\b|gan_', path.read_text()), path


def test_the_core_reads_in_an_evening():
    assert sum(len(path.read_text().splitlines()) for path in core()) <= 3500


def public_functions(node: ast.Module | ast.ClassDef, prefix: str) -> dict[str, ast.FunctionDef]:
    """Functions and methods of public names, __init__ and __call__ among them."""
    found = {}
    for item in node.body:
        special = getattr(item, 'name', '') in ('__init__', '__call__')
        if not special and getattr(item, 'name', '_').startswith('_'):
            continue
        if isinstance(item, ast.FunctionDef):
            found[prefix + item.name] = item
        elif isinstance(item, ast.ClassDef):
            found |= public_functions(item, f'{prefix}{item.name}.')
    return found


def test_public_functions_have_types_for_all_arguments_and_the_result():
    missing = []
    for module, path in modules().items():
        for name, function in public_functions(tree_of(path), f'{module}:').items():
            given = function.args
            arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            arguments += [argument for argument in (given.vararg, given.kwarg) if argument]
            bare = [x.arg for x in arguments if not x.annotation and x.arg not in ('self', 'cls')]
            bare += ['return'] * (function.returns is None and function.name != '__init__')
            missing += [f'{name} {argument}' for argument in bare]
    assert missing == []
