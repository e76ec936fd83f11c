"""What all tests share: eight simulated CPU devices, tiny configurations, a tiny text."""

import os
import sys
import tempfile
from pathlib import Path

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_NUM_CPU_DEVICES'] = '8'
# Shared by all tests of this process and theirs: each program is compiled once. Not by several
# workers: JAX does not write an entry at once, and another may read half of it.
_compiled = tempfile.TemporaryDirectory(prefix='gptjax-compiled-')
os.environ['JAX_COMPILATION_CACHE_DIR'] = _compiled.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # main.py and configs/ are not in the package.

import dataclasses  # noqa: E402
import importlib.util  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import tarfile  # noqa: E402

import pytest  # noqa: E402

from gptjax.config import Config, DataConfig, ModelConfig, SampleConfig, TrainConfig  # noqa: E402

HAS_TORCH = all(importlib.util.find_spec(name) for name in ('torch', 'transformers'))
HAS_LENS = importlib.util.find_spec('transformer_lens') is not None
HAS_TRACKERS = all(importlib.util.find_spec(name) for name in ('tensorboard', 'wandb'))
HAS_NOTEBOOK = all(importlib.util.find_spec(name) for name in ('nbclient', 'ipykernel'))
HAS_SERVE = all(
    importlib.util.find_spec(name)
    for name in ('starlette', 'uvicorn', 'prometheus_client', 'httpx', 'openai', 'hypothesis')
)
HAS_LM_EVAL = HAS_SERVE and importlib.util.find_spec('lm_eval') is not None
HAS_BROWSER = bool(importlib.util.find_spec('selenium') and shutil.which('chromedriver'))
# Marks of tests that need more than the extra `test`: what it is, whether it is there, a command.
NEEDS = {
    'torch': ('PyTorch', HAS_TORCH, "pip install -e '.[test,bench]' && python -m pytest -m torch"),
    'lens': (
        *('TransformerLens', HAS_LENS),
        "pip install -e '.[test,torch]' transformer-lens && python -m pytest -m lens",
    ),
    'trackers': (
        *('TensorBoard and wandb', HAS_TRACKERS),
        "pip install -e '.[test,trackers]' && python -m pytest -m trackers",
    ),
    'notebook': (
        *('nbclient and ipykernel', HAS_NOTEBOOK),
        "pip install -e '.[test,notebook]' && python -m pytest -m notebook",
    ),
    'serve': (
        *('the server with its judges', HAS_SERVE),
        "pip install -e '.[test,serve,judges]' && python -m pytest -m serve",
    ),
    'lm_eval': (
        *('the server with lm-eval', HAS_LM_EVAL),
        "pip install -e '.[test,serve,judges]' 'lm-eval[api]' && python -m pytest -m lm_eval",
    ),
    'mpi': (
        *('Open MPI', shutil.which('mpirun') is not None),
        'apt-get install openmpi-bin && python -m pytest -m mpi',
    ),
    'browser': (
        *('Chromium with its driver', HAS_BROWSER),
        "pip install -e '.[test,browser]' && python -m pytest -m browser",
    ),
}

AS_USERS = {'XLA_FLAGS': ''}  # the environment of a command that computes for minutes

VERSE = (
    'ROMEO:\nBut, soft! what light through yonder window breaks?\n'
    'It is the east, and Juliet is the sun.\n\nJULIET:\nAy me!\n\n'
    'ROMEO:\nShe speaks: O, speak again, bright angel! for thou art\n'
    "As glorious to this night, being o'er my head\nAs is a winged messenger of heaven.\n\n"
)


def pytest_configure(config):
    """Tests compile without LLVM's optimizations, in two thirds of the time.

    They test what is computed, not how fast; those that train for minutes compile as for users
    (AS_USERS), and all do with XLA_FLAGS= before the command.
    """
    del config
    os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')


def pytest_collection_modifyitems(config, items):
    """Leaves out the tests that need what is not installed; the longest of the others come first.

    Their order counts with `--dist=load --maxschedchunk=1`: no long test is then the last one.
    """
    missing = [mark for mark, (_, found, _) in NEEDS.items() if not found]
    needing = [item for item in items if any(map(item.get_closest_marker, missing))]
    items[:] = [item for item in items if item not in needing]
    config.hook.pytest_deselected(items=needing)

    def minutes(item) -> float:
        mark = item.get_closest_marker('slow')
        return mark.kwargs.get('minutes', 0) if mark else 0

    items.sort(key=minutes, reverse=True)


def pytest_report_header():
    """Says so."""
    return [
        f'left out, needs {what}: {command}' for what, found, command in NEEDS.values() if not found
    ]


def pytest_terminal_summary(terminalreporter):
    """Says so again with -q, which hides the header."""
    if terminalreporter.verbosity < 0:
        for line in pytest_report_header():
            terminalreporter.write_line(line)


def import_or_none(name: str):
    """A module of the PyTorch extra, for tests that are marked `torch`."""
    return importlib.import_module(name) if HAS_TORCH else None


def optional(name: str):
    """A module that some marked tests need; None where it is not installed."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture(scope='session')
def verse_file(tmp_path_factory) -> Path:
    """A text of some thousand characters."""
    path = tmp_path_factory.mktemp('text') / 'verse.txt'
    path.write_text(VERSE * 20)
    return path


@pytest.fixture(scope='session')
def tiny(tmp_path_factory, verse_file) -> Config:
    """A configuration that compiles in a second or two."""
    return Config(
        name='tiny',
        model=ModelConfig(block_size=16, n_layer=2, n_head=2, n_embd=16),
        data=DataConfig(path=str(verse_file), cache_dir=str(tmp_path_factory.mktemp('cache'))),
        train=TrainConfig(
            steps=6, batch_size=8, learning_rate=1e-2, eval_every=3, save_every=3, log_every=2
        ),
        sample=SampleConfig(max_new_tokens=20, chunk=4),
    )


def replace(config: Config, **sections) -> Config:
    """The configuration with some knobs of some sections changed, as in train={'steps': 3}."""
    changed = {
        name: dataclasses.replace(getattr(config, name), **values)
        for name, values in sections.items()
    }
    return dataclasses.replace(config, **changed)


def run_main(*args: str, cwd: Path = ROOT, env: dict | None = None, timeout: int = 600, **kwargs):
    """main.py in a process of its own, with its output captured as text."""
    environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '1', **(env or {})}
    return subprocess.run(
        [sys.executable, str(ROOT / 'main.py'), *args],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **kwargs,
    )


def unpack_golden(folder: Path, *names: str) -> Path:
    """Work directories of version 0.1.0 (see test_golden.py), in a folder."""
    for name in names:
        with tarfile.open(ROOT / 'tests' / 'golden' / f'{name}.tar.xz') as archive:
            archive.extractall(folder, filter='data')
    return folder


def one_line(done, status: int) -> str:
    """The single line on standard error of a run that failed with this status."""
    lines = done.stderr.strip().splitlines()
    assert done.returncode == status, done.stderr
    assert len(lines) == 1, done.stderr
    assert 'Traceback' not in done.stderr
    return lines[0]
