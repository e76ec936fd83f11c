"""Aligned texts, read from two files or a TSV file, and what a work directory keeps of them."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gptjax.config import Config, DataConfig, TranslationConfig
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.file_sums import file_sha256
from gptjax.files import DamagedError, read_object, write_atomically
from gptjax.text import corpora, tokenizers
from gptjax.text.clean import clean
from gptjax.text.reading import read, source_sha256
from gptjax.text.tokenizers import Tokenizer

Pair = tuple[str, str]
Tokenizers = tuple[Tokenizer, Tokenizer]  # of the source and of the target
# The files of the tokenizers, which may be one.
FILES = (['tokenizer.json', 'tokenizer.json'], ['tokenizer.json', 'tokenizer_target.json'])


@dataclasses.dataclass(frozen=True)
class PairSplits:
    """What is learnt from, what is held out, and the hash of the files."""

    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    sha256: str


def read_splits(data: DataConfig, translation: TranslationConfig, say: Say = print) -> PairSplits:
    """The pairs that a configuration asks for, cleaned; those with an empty side are left out.

    Without a validation text the last pairs are held out or, with data.split=documents, some at
    random.

    Raises:
      UserError: files have unequal numbers of lines, a line is no pair, a file cannot be read or a
        split is empty.
    """
    for name, source_name in (('target_path', 'path'), ('val_target_path', 'val_path')):
        target = getattr(translation, name)
        if target and not getattr(data, source_name):
            raise UserError(
                f'translation.{name}={target} needs the lines it is aligned with; '
                f'add data.{source_name}=FILE'
            )
    source = corpora.source(data, say)
    targets = translation.target_path, translation.val_target_path
    given = zip((source.train, source.val), targets, strict=True)
    parts = [read_pairs(paths, target) for paths, target in given]
    files = (*source.train, *map(Path, filter(None, targets)))
    sha256 = source_sha256(dataclasses.replace(source, train=files), say)
    cleaned = [[(clean(s, data), clean(t, data)) for s, t in part] for part in parts]
    train, val = ([pair for pair in part if all(pair)] for part in cleaned)
    if left_out := sum(map(len, parts)) - len(train) - len(val):
        say(f'{left_out:,} pairs with an empty side are left out')
    if not source.val:
        train, val = _hold_out(train, data)
    for name, part in (('training', train), ('validation', val)):
        if not part:
            raise UserError(
                f'there are no {name} pairs in {source.train[0]}; '
                'give more lines, or another data.val_fraction'
            )
    return PairSplits(tuple(train), tuple(val), sha256)


def learn(splits: PairSplits, config: Config, say: Say) -> Tokenizers:
    """The tokenizers of the source and of the target; one for both with a shared vocabulary."""
    data = config.data

    def learn_from(texts: Iterable[str]) -> Tokenizer:
        cache_dir = corpora.cache_folder(data)
        return tokenizers.learn(texts, data, ends=True, cache_dir=cache_dir, say=say)

    # Without a character that only the held-out text has, that text could not be encoded.
    seen = splits.train + (splits.val if data.tokenizer == 'char' else ())
    if config.translation.shared_vocab:
        shared = learn_from(text for pair in seen for text in pair)
        return shared, shared
    return learn_from(source for source, _ in seen), learn_from(target for _, target in seen)


def save(workdir: Path, both: Tokenizers, val: tuple[Pair, ...], *, sha256: str) -> None:
    """Leaves in a work directory the tokenizers, the held-out pairs and the hash of the files."""
    names = FILES[both[0] != both[1]]
    for name, tokenizer in zip(names, both, strict=True):
        write_atomically(workdir / name, tokenizer.to_json().encode())
    write_atomically(workdir / 'val.tsv', to_tsv(val).encode())
    about = {'sha256': sha256, 'tokenizers': names, 'val_sha256': file_sha256(workdir / 'val.tsv')}
    write_atomically(workdir / 'data.json', json.dumps(about, indent=1).encode())


def load(workdir: Path) -> tuple[Tokenizers, tuple[Pair, ...], str]:
    """What `save` left.

    Raises:
      OSError, UnicodeDecodeError, DamagedError, UserError: something is missing or damaged.
    """
    about = read_object(workdir / 'data.json', sha256=str, val_sha256=str, tokenizers=list)
    if about['tokenizers'] not in FILES:
        raise DamagedError(f'{workdir / "data.json"} names unknown tokenizers')
    path = workdir / 'val.tsv'
    if file_sha256(path) != about['val_sha256']:
        raise DamagedError(f'{path} is not what was saved')
    source, target = (tokenizers.from_json((workdir / x).read_text()) for x in about['tokenizers'])
    val = tuple(parse_tsv(path.read_bytes().decode(), str(path)))
    return (source, target), val, about['sha256']


def parse_tsv(text: str, name: str) -> list[Pair]:
    """`source TAB target` lines -> pairs; a blank line is a pair of empty texts.

    Raises:
      UserError: a line has no tab, or several.
    """
    pairs = []
    for number, line in enumerate(_lines(text), 1):
        source, *target = line.split('\t') if line else ('', '')
        if len(target) != 1:
            raise UserError(
                f'{name} has {len(target)} tabs in line {number} ({line[:40]!r}), and a pair has '
                'one, between source and target; for two files add translation.target_path=FILE'
            )
        pairs.append((source.strip(), target[0].strip()))
    return pairs


def to_tsv(pairs: tuple[Pair, ...]) -> str:
    """The inverse of `parse_tsv`."""
    return ''.join(f'{source}\t{target}\n' for source, target in pairs)


def read_pairs(paths: tuple[Path, ...], target_path: str = '') -> list[Pair]:
    """The pairs of TSV files, or of files whose lines are aligned with those of another.

    Raises:
      UserError: a file cannot be read, or does not have such lines.
    """
    if not target_path:
        return [pair for path in paths for pair in parse_tsv(_text(path), str(path))]
    sources = [line for path in paths for line in _lines(_text(path))]
    targets = _lines(_text(Path(target_path)))
    if len(sources) != len(targets):
        raise UserError(
            f'{", ".join(map(str, paths))} has {len(sources)} lines and {target_path} has '
            f'{len(targets)}; aligned files have the same number, so add what is missing'
        )
    # A tab within a line would be read as the border of a pair when it is saved as one.
    pairs = zip(sources, targets, strict=True)
    return [(s.replace('\t', ' ').strip(), t.replace('\t', ' ').strip()) for s, t in pairs]


def _text(path: Path) -> str:
    source = corpora.Source((path,))
    source_sha256(source, lambda _: None)  # Complains of what cannot be read.
    return ''.join(piece.text for piece in read(source))


def _lines(text: str) -> list[str]:
    # Not splitlines(), which cuts at form feeds and other rarities too.
    return text.removesuffix('\n').split('\n') if text else []


def _hold_out(pairs: list[Pair], data: DataConfig) -> tuple[list[Pair], list[Pair]]:
    count = max(0, min(max(1, round(len(pairs) * data.val_fraction)), len(pairs) - 1))
    order = np.arange(len(pairs))
    if data.split == 'documents':
        # The same ones in every run, whatever its seed: figures are to be comparable.
        order = np.random.default_rng(0).permutation(len(pairs))
    out = set(order[len(pairs) - count :].tolist())
    train = [pair for i, pair in enumerate(pairs) if i not in out]
    return train, [pair for i, pair in enumerate(pairs) if i in out]
