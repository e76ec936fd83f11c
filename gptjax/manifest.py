"""SHA-256 sums of all files that a work directory needs besides its checkpoints, in manifest.json.

Work directories of version 0.1.0 have no manifest.json; they get one when they are trained on.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from gptjax.errors import UserError
from gptjax.file_sums import file_sha256
from gptjax.files import write_atomically

MANIFEST, CONFIG = 'manifest.json', 'config.json'
Sums = dict[str, list[str]]  # the hashes that a file of this name may have


class DamagedRunError(UserError):
    """A file of a run is not what was saved."""

    def __init__(self, workdir: Path, reason: object) -> None:
        super().__init__(
            f'the run in {workdir} is damaged ({reason}); restore its files from a backup, '
            'or train again with another --workdir'
        )


def save(write: Callable[[Path], None], workdir: Path, *, keep: bool = False) -> None:
    """Writes the files of a task into a work directory, and their sums into the manifest.

    `write` writes them into a folder; with `keep` those that are there stay as they are.
    """
    folder = workdir / '.saving'
    shutil.rmtree(folder, ignore_errors=True)  # Of a process that was killed.
    folder.mkdir()
    write(folder)
    sums = {}
    for path in sorted(path for path in folder.rglob('*') if path.is_file()):
        name = path.relative_to(folder).as_posix()
        target = workdir / name
        if not keep:
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
        if target.exists():
            sums[name] = [file_sha256(target)]
    shutil.rmtree(folder)
    _write(workdir, sums)


def save_config(content: bytes, workdir: Path) -> None:
    """Writes config.json. At every moment the manifest accepts the one that is there."""
    path = workdir / CONFIG
    accepted = [hashlib.sha256(content).hexdigest()]
    if path.exists():
        accepted.append(file_sha256(path))
    _write(workdir, _read(workdir) | {CONFIG: accepted})
    write_atomically(path, content)


def exists(workdir: Path) -> bool:
    """Whether the work directory has a manifest."""
    return (workdir / MANIFEST).exists()


def check(workdir: Path) -> None:
    """Compares all files with the manifest, if there is one; raises DamagedRunError."""
    for name, accepted in _read(workdir).items() if exists(workdir) else ():
        path = workdir / name
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            raise DamagedRunError(workdir, f'{path}: {error.strerror}') from None
        if sha256 not in accepted:
            raise DamagedRunError(workdir, f'{path} is not what was saved: its SHA-256 differs')


def _write(workdir: Path, sums: Sums) -> None:
    content = {'sha256': _sum(sums), 'files': sums}
    write_atomically(workdir / MANIFEST, json.dumps(content, indent=1).encode())


def _read(workdir: Path) -> Sums:
    path = workdir / MANIFEST
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        sums, sha256 = content['files'], content['sha256']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedRunError(workdir, f'{path} cannot be read: {error}') from None
    if _sum(sums) != sha256:
        raise DamagedRunError(workdir, f'{path} is not what was saved: its own SHA-256 differs')
    return sums


def _sum(sums: Sums) -> str:
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
