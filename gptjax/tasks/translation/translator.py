"""Lines of text -> their translations: in batches, in order, whatever their lengths."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gptjax.config import DataConfig, MeshConfig, SampleConfig
from gptjax.errors import UserError
from gptjax.generation.rules import RowRules, Rules
from gptjax.generation.text_stream import TextStream
from gptjax.parallel.mesh import Layout, on_host, rounded_up
from gptjax.tasks.translation.beam import beam_search
from gptjax.tasks.translation.decode import Decoding, translate
from gptjax.tasks.translation.lines import split_line
from gptjax.tasks.translation.seq2seq import Seq2Seq
from gptjax.text.clean import clean
from gptjax.text.tokenizers import Tokenizer, end_of

ROWS = 64  # hypotheses, or samples, computed at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Translator:
    """A trained model and how to use it."""

    model: Seq2Seq
    params: dict
    source: Tokenizer
    target: Tokenizer
    data: DataConfig
    options: SampleConfig
    mesh: MeshConfig

    def check(self, lines: Sequence[str]) -> None:
        """Raises UserError for the first line that cannot be translated."""
        for number, line in enumerate(lines, 1):
            self._parts(number, line)

    def __call__(self, lines: Sequence[str]) -> list[list[str]]:
        """The translations of each line, `num_samples` of them; an empty line has empty ones.

        Raises:
          UserError: a line has unknown characters, or is over the block and not to be split.
        """
        parts = [self._parts(number, line) for number, line in enumerate(lines, 1)]
        ids = [self._encode(text) for texts in parts for text in texts]
        done: dict[int, list[str]] = {}
        # Like lengths together: short ones need not wait for long ones, nor be padded like them.
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        at_once = max(1, ROWS // max(self.options.beam, self.options.num_samples))
        for first in range(0, len(order), at_once):
            chosen = order[first : first + at_once]
            done.update(zip(chosen, self._translate([ids[i] for i in chosen]), strict=True))
        translated = (done[i] for i in range(len(ids)))
        lines_of_parts = [[next(translated) for _ in texts] for texts in parts]
        samples = range(self.options.num_samples)
        return [[' '.join(part[n] for part in line) for n in samples] for line in lines_of_parts]

    def _translate(self, ids: list[np.ndarray]) -> list[list[str]]:
        """The texts of each source, all computed at a time."""
        options, block_size = self.options, self.model.config.block_size
        width = min(_power_of_two(max(8, *map(len, ids))), block_size)
        # Few shapes, so few compilations; padding rows get length 1.
        rows = rounded_up(_power_of_two(len(ids)), self.mesh)
        source_BS = np.full((rows, width), self.source.end, np.int32)
        lengths_B = np.ones(rows, np.int32)
        for i, line in enumerate(ids):
            source_BS[i, : len(line)], lengths_B[i] = line, len(line)
        layout = Layout(self.mesh, rows)
        source_BS, lengths_B = layout.put((source_BS, lengths_B), whole=True)
        given = self.model, layout.place(self.params), source_BS
        limit = min(block_size, options.max_new_tokens)
        decoding = Decoding(end_of(self.target), limit, options.chunk, self.target.banned)
        how: dict[str, Any] = {'lengths_B': lengths_B, 'decoding': decoding}
        if options.beam > 1:
            how |= {'width': options.beam, 'penalty': options.length_penalty}
            tokens, _ = beam_search(*given, **how)
        else:
            how |= {'samples': options.num_samples, 'seed': options.seed}
            tokens = translate(*given, rules=RowRules.of([Rules.from_config(options)]), **how)
        tokens_BNT = on_host(tokens).reshape(rows, -1, limit)[: len(ids), : options.num_samples]
        return [[self._text(row_T) for row_T in rows_NT] for rows_NT in tokens_BNT]

    def _text(self, ids: np.ndarray) -> str:
        stream = TextStream(self.target, self.options.stop)
        return (stream.push(ids.tolist()) + stream.finish()).strip()

    def _parts(self, number: int, line: str) -> list[str]:
        line = clean(line, self.data).strip()
        if not line:
            return []
        self.source.check(line)
        block_size = self.model.config.block_size

        def fits(text: str) -> bool:
            return len(self._encode(text)) <= block_size

        if fits(line):
            return [line]
        remedy = 'shorten it, or translate it in parts with sample.long_lines=split'
        if self.options.long_lines == 'split':
            if parts := split_line(line, fits):
                return parts
            remedy = 'a word of it is too long: shorten it'
        raise UserError(
            f'line {number} ({line[:40]!r}...) has {len(self._encode(line))} tokens, and the '
            f'model takes {block_size}; {remedy}'
        )

    def _encode(self, text: str) -> np.ndarray:
        return np.append(self.source.encode(text), end_of(self.source)).astype(np.int32)


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()
