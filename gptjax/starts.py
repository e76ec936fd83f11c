"""starts.jsonl: when, where and with what the training of a work directory began or went on."""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path

import jax

from gptjax.chips import hardware

PACKAGE = Path(__file__).parent
KINDS = {'step': int, 'time': str, 'command': str, 'code': str, 'versions': dict, 'device': str}
VERSIONS = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


@dataclasses.dataclass(frozen=True)
class Start:
    """A process that trained a run."""

    step: int  # that it started from
    time: str  # ISO 8601, UTC
    command: str  # to type; empty where Python called
    code: str  # the beginning of a SHA-256 of gptjax's own modules
    versions: dict[str, str]
    device: str
    devices: int


def note(workdir: Path, step: int, command: str) -> None:
    """Adds a line for this process, which trains on from a step."""
    devices = jax.devices()
    start = Start(
        step,
        datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        command,
        code_sha256()[:12],
        {'python': platform.python_version()} | {name: metadata.version(name) for name in VERSIONS},
        devices[0].device_kind if devices[0].platform != 'cpu' else hardware(),
        len(devices),
    )
    path = workdir / 'starts.jsonl'
    cut_off = path.exists() and not path.read_bytes().endswith(b'\n')
    with open(path, 'a', encoding='utf-8') as file:
        file.write('\n' * cut_off + json.dumps(dataclasses.asdict(start)) + '\n')


def read(workdir: Path) -> list[Start]:
    """All of them; a line that was cut short is left out, and so are those of older versions."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        text = (workdir / 'starts.jsonl').read_text(encoding='utf-8', errors='replace')
        for line in text.splitlines():
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                start = Start(**json.loads(line))
                if all(type(getattr(start, name)) is kind for name, kind in KINDS.items()):
                    found.append(start)
    return found


def code_sha256() -> str:
    """The SHA-256 of gptjax's own modules."""
    sums = hashlib.sha256()
    for path in sorted(PACKAGE.rglob('*.py')):
        sums.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return sums.hexdigest()
