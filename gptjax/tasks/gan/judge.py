"""What generated sentences are compared with: baselines, and a word-level language model."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from gptjax import run_files, tasks
from gptjax.config import Config, MeshConfig, SampleConfig
from gptjax.errors import UserError
from gptjax.generation.requests import whole_texts
from gptjax.parallel.mesh import Layout
from gptjax.tasks.base import LossTask
from gptjax.tasks.gan import likeness, sentences
from gptjax.text.words import WordTokenizer

HOW_TO_JUDGE = (
    'For perplexity, and the samples of a word GPT beside these: train one on the same sentences '
    'with the recipe configs/gan.py:judge, then set gan_sampling.judge=runs/gan-judge'
)
JUDGED_ROWS = 64  # sentences judged at a time
SAMPLING = SampleConfig(temperature=1.0, stop=('\n',), chunk=32)


def compare(
    config: Config, tokenizer: WordTokenizer, ours: list, *, learnt: list, held_out: list
) -> dict[str, dict]:
    """All figures of generated sentences and of the baselines, by the name of the row."""
    drawn = likeness.by_frequency(learnt, len(ours), np.random.default_rng(0))
    lists = {'generator': ours, 'words by frequency': drawn, 'held-out sentences': held_out}
    judge = None
    if workdir := config.gan_sampling.judge:
        judge = Judge(Path(workdir), config, tokenizer)
        lists['word GPT'] = judge.samples(len(ours))
    rows = {}
    for name, listed in lists.items():
        rows[name] = likeness.figures(listed, held_out, learnt)
        rows[name]['self_bleu'] = likeness.self_bleu(listed)
        if judge:
            rows[name]['perplexity'] = judge.perplexity(listed)
    return rows


class Judge:
    """A word-level language model of the same sentences, a line each."""

    def __init__(self, workdir: Path, asking: Config, tokenizer: WordTokenizer) -> None:
        """Loads the best checkpoint of a work directory.

        Raises:
          UserError: there is none, or it is no word-level language model.
        """
        if not run_files.is_trained(workdir):
            raise UserError(
                f'gan_sampling.judge={workdir} has no trained model; '
                'train the recipe configs/gan.py:judge'
            )
        config = run_files.load_config(workdir)
        if config.task != 'language_model' or config.data.tokenizer != 'word':
            raise UserError(
                f'gan_sampling.judge={workdir} is a {config.task} of tokens of kind '
                f'{config.data.tokenizer}, and judging takes a language_model of words; '
                'train the recipe configs/gan.py:judge'
            )
        self._asking, self._tokenizer = asking, tokenizer
        self._judge = tasks.load(config, workdir)
        assert isinstance(self._judge, LossTask)
        self._loss = self._judge.eval_step
        layout = Layout(MeshConfig(), 1)
        _, self._params = run_files.restore(self._judge, workdir, 'best', layout)
        self._newline = int(self._judge.tokenizer.encode('\n')[0])

    def samples(self, count: int) -> list[tuple[int, ...]]:
        """Sentences of the language model itself, at temperature 1, in the GAN's ids."""
        asking, texts = self._asking, []
        sampling = dataclasses.replace(SAMPLING, max_new_tokens=asking.gan.max_words)
        for first in range(0, count, JUDGED_ROWS):
            rows = min(JUDGED_ROWS, count - first)
            config = dataclasses.replace(sampling, num_samples=rows, seed=first)
            texts += whole_texts(self._judge.stream(self._params, ['\n'], config))
        words = [sentences.to_words(text, asking.gan) for text in texts]
        rows_NT = sentences.to_rows(words, self._tokenizer, asking.model.block_size)
        return sentences.word_lists(rows_NT)

    def perplexity(self, listed: Sequence[Sequence[int]]) -> float:
        """exp of the mean nats of a word, the end of the sentence counted as one."""
        encode, size = self._judge.tokenizer.encode, self._judge.config.model.block_size
        texts = (self._tokenizer.decode(ids) for ids in listed)
        ids = [[self._newline, *encode(text).tolist(), self._newline][: size + 1] for text in texts]
        sums = np.zeros(2)
        for first in range(0, len(ids), JUDGED_ROWS):
            rows_BT = np.zeros((JUDGED_ROWS, size + 1), np.int32)
            lengths_B = np.zeros(JUDGED_ROWS, np.int32)
            for i, row in enumerate(ids[first : first + JUDGED_ROWS]):
                rows_BT[i, : len(row)], lengths_B[i] = row, len(row) - 1
            batch = {'inputs': rows_BT[:, :-1], 'targets': rows_BT[:, 1:], 'lengths': lengths_B}
            sums += jax.device_get(self._loss(self._params, batch))
        return float(np.exp(sums[0] / sums[1]))
