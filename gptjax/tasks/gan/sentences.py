"""A text -> rows of word ids, a sentence each: <START> words <END> <PAD>...

Sentences are lines, or what pysbd finds (Sadvilkar and Neumann, 2020, https://arxiv.org/abs/2010.09657),
which takes a minute for two million characters and is therefore done once for each text. They are
held in memory: a row is 2 bytes a token, where one-hot rows were 4 bytes a token and word.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.config import Config, DataConfig, GanConfig
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.file_sums import file_sha256
from gptjax.files import DamagedError, read_object, write_atomically
from gptjax.text import tokenizers, words
from gptjax.text.batches import rows_of_process
from gptjax.text.clean import clean
from gptjax.text.corpora import Source, cache_folder
from gptjax.text.reading import read, source_sha256
from gptjax.text.words import END, PAD, START, UNKNOWN, WordTokenizer

Texts = Iterable[str]
Numbered = list[tuple[int, str]]  # (document, sentence)


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Both splits as rows of ids, the tokenizer that made them, and the hash of the text."""

    tokenizer: WordTokenizer
    train_NT: np.ndarray  # uint16 or uint32
    val_NT: np.ndarray
    sha256: str


def prepare(source: Source, config: Config, say: Say = print) -> Sentences:
    """The sentences of a text that fit the configuration, each once.

    Raises:
      UserError: the rows are too short for max_words, a split is empty, or a text cannot be read.
    """
    data, gan, block_size = config.data, config.gan, config.model.block_size
    if data.tokenizer != 'word':
        raise UserError(
            f'data.tokenizer={data.tokenizer} has no words, and task=gan writes word by word; '
            'add data.tokenizer=word'
        )
    if block_size < gan.max_words + 2:
        raise UserError(
            f'model.block_size={block_size} is too short for <START>, gan.max_words='
            f'{gan.max_words} words and <END>; try model.block_size={gan.max_words + 2}'
        )
    sha256 = source_sha256(source, say)
    train, val = (
        [ws for text in texts if gan.min_words <= len(ws := to_words(text, gan)) <= gan.max_words]
        for texts in _splits(source, config, sha256, say)
    )
    tokenizer = WordTokenizer.learn((' '.join(sentence) + ' ' for sentence in train), data, True)
    train_NT, val_NT = (to_rows(split, tokenizer, block_size) for split in (train, val))
    if gan.unknown == 'drop':
        train_NT, val_NT = (r[~(r == UNKNOWN).any(1)] for r in (train_NT, val_NT))
    for name, rows in (('training', train_NT), ('held-out', val_NT)):
        if len(rows) < 2:
            raise UserError(
                f'{source.train[0]} has {len(rows)} {name} sentences of {gan.min_words} to '
                f'{gan.max_words} words that the vocabulary of {tokenizer.vocab_size} knows; use a '
                'longer text, or change gan.min_words, gan.unknown or data.vocab_size'
            )
    return Sentences(tokenizer, train_NT, val_NT, sha256)


def to_words(sentence: str, gan: GanConfig) -> list[str]:
    """The words of a sentence; its punctuation marks are words if they are kept."""
    parts = words.split(sentence)
    return [w for w in parts if any(map(str.isalnum, w)) or (w != '\n' and not gan.letters_only)]


def encode_prompt(prompt: str, tokenizer: WordTokenizer, config: Config) -> list[int]:
    """The ids of the words that a sentence is to begin with.

    Raises:
      UserError: the vocabulary lacks a word, or there are too many of them.
    """
    found = to_words(clean(prompt, config.data), config.gan)
    text, most = ' '.join(found), config.model.block_size - 2
    tokenizer.check(text)
    if len(found) > most:
        raise UserError(
            f'the prompt has {len(found)} words, and a sentence has at most {most}; shorten it'
        )
    return tokenizer.encode(text).tolist()


def to_rows(sentences: list[list[str]], tokenizer: WordTokenizer, block_size: int) -> np.ndarray:
    """Sentences of at most block_size - 2 words -> (N, block_size) ids."""
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    rows_NT = np.full((len(sentences), block_size), PAD, dtype)
    rows_NT[:, 0] = START
    ids = {word: i for i, word in enumerate(tokenizer.words, len(words.SPECIAL))}
    for row, sentence in zip(rows_NT, sentences, strict=True):
        row[1 : len(sentence) + 1] = [ids.get(word, UNKNOWN) for word in sentence]
        row[len(sentence) + 1] = END
    return rows_NT


def word_lists(rows_NT: np.ndarray) -> list[tuple[int, ...]]:
    """The ids between <START> and the first <END> of each row; all of them where there is none."""
    is_end_NT = rows_NT[:, 1:] == END
    length_N = np.where(is_end_NT.any(1), is_end_NT.argmax(1), is_end_NT.shape[1])
    return [tuple(row[1 : n + 1].tolist()) for row, n in zip(rows_NT, length_N, strict=True)]


def random_rows(
    rows_NT: np.ndarray,
    *,
    seed: int,
    step: int,
    batch_size: int,
    turns: int,
    process: int = 0,
    processes: int = 1,
) -> dict[str, np.ndarray]:
    """The batch of a step, a function of (seed, step, process).

    Returns:
      `ids` (B, turns, T) int32, a batch for each step of the critic, and `row` (B,) int32, the
      number of each row in the whole batch, which its noise depends on. B is this process's part.
    """
    draw = np.random.default_rng((seed, step))
    own = rows_of_process(batch_size, process, processes)
    chosen = draw.integers(0, len(rows_NT), size=(batch_size, turns))[own]
    row = np.arange(batch_size, dtype=np.int32)[own]
    return {'ids': rows_NT[chosen].astype(np.int32), 'row': row}


def _splits(source: Source, config: Config, sha256: str, say: Say) -> tuple[Texts, Texts]:
    """(texts to learn from, held-out texts); a sentence that occurs in both is held out."""
    if source.val:
        train, val = (
            _split_once(Source(paths, (), source.marked), config, sha256 + part, say)
            for paths, part in ((source.train, 't'), (source.val, 'v'))
        )
    else:
        # Each sentence once, before some are held out, or none might be left to learn.
        first: dict[str, int] = {}
        for number, text in _split_once(source, config, sha256, say):
            first.setdefault(text, number)
        train, val = _hold_out([(number, text) for text, number in first.items()], config.data)
    held_out = dict.fromkeys(text for _, text in val)
    return [t for t in dict.fromkeys(text for _, text in train) if t not in held_out], held_out


def _hold_out(sentences: Numbered, data: DataConfig) -> tuple[Numbered, Numbered]:
    if data.split == 'end':
        cut = int(len(sentences) * (1 - data.val_fraction))
        return sentences[:cut], sentences[cut:]
    numbers = sorted({number for number, _ in sentences})
    count = round(len(numbers) * data.val_fraction)
    # The same ones in every run, whatever its seed: figures are to be comparable.
    chosen = set(np.random.default_rng(0).permutation(numbers)[:count].tolist())
    train = [pair for pair in sentences if pair[0] not in chosen]
    return train, [pair for pair in sentences if pair[0] in chosen]


def _split_once(source: Source, config: Config, sha256: str, say: Say) -> Numbered:
    """All sentences of a text, from the cache if it was split before."""
    data, gan = config.data, config.gan
    recipe = [sha256, gan.splitter, data.normalize, data.lowercase, source.marked]
    name = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    path = cache_folder(data) / 'sentences' / f'{name}.json'
    if gan.splitter == 'line':
        return list(_split(source, data, by_line=True))
    if not path.exists():
        say(f'Splitting {source.train[0]} into sentences; this is done once for each text')
        pairs = list(_split(source, data, by_line=False))
        write_atomically(path, json.dumps(pairs, ensure_ascii=False).encode())
    return [(number, text) for number, text in json.loads(path.read_text())]


def _split(source: Source, data: DataConfig, *, by_line: bool) -> Iterator[tuple[int, str]]:
    """Where a line is a sentence, it is a document too: lines can then be held out at random."""
    segment = str.splitlines if by_line else _pysbd().segment
    line_number, text = 0, ''
    for piece in read(source):
        text += piece.text
        if not piece.ends:
            continue
        for sentence in segment(text if by_line else ' '.join(text.split())):
            if sentence.strip():
                # The library looks at capital letters, so cleaning comes after it.
                cleaned = clean(sentence.strip(), data)
                yield (line_number if by_line else piece.document), cleaned
                line_number += 1
        text = ''


def _pysbd() -> Any:
    try:
        import pysbd
    except ImportError:
        raise UserError(
            "gan.splitter=library needs pysbd, which is not installed; pip install -e '.[gan]', "
            'or give a sentence a line and gan.splitter=line'
        ) from None
    return pysbd.Segmenter(language='en', clean=False)


def save(sentences: Sentences, workdir: Path) -> None:
    """Leaves in a work directory what `load` reads, and the sentences as text for people."""
    folder, about = workdir / 'sentences', {'sha256': sentences.sha256}
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows_NT in (('train', sentences.train_NT), ('val', sentences.val_NT)):
        np.save(folder / f'{name}.npy', rows_NT, allow_pickle=False)
        about[f'{name}_sha256'] = file_sha256(folder / f'{name}.npy')
        lines = (sentences.tokenizer.decode(ids) + '\n' for ids in word_lists(rows_NT))
        write_atomically(folder / f'{name}.txt', ''.join(lines).encode())
    write_atomically(workdir / 'tokenizer.json', sentences.tokenizer.to_json().encode())
    write_atomically(workdir / 'data.json', json.dumps(about, indent=1).encode())


def load(workdir: Path) -> Sentences:
    """The sentences as `save` left them.

    Raises:
      OSError, DamagedError, UserError: something is missing or damaged.
    """
    about = read_object(workdir / 'data.json', sha256=str, train_sha256=str, val_sha256=str)
    tokenizer = tokenizers.from_json((workdir / 'tokenizer.json').read_text())
    assert isinstance(tokenizer, WordTokenizer)
    splits = []
    for name in ('train', 'val'):
        path = workdir / 'sentences' / f'{name}.npy'
        if file_sha256(path) != about[f'{name}_sha256']:
            raise DamagedError(f'{path} is not what was saved')
        splits.append(np.load(path, allow_pickle=False))
    train_NT, val_NT = splits
    return Sentences(tokenizer, train_NT, val_NT, about['sha256'])
