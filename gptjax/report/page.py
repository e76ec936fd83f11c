"""The report of a run as one page of HTML, or as JSON."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gptjax import pages
from gptjax.config import Config
from gptjax.config.schema import flatten
from gptjax.report import compare
from gptjax.report.chart import Drawn, Line, Mark, draw
from gptjax.report.language_model import ByToken
from gptjax.report.record import Curve, Record
from gptjax.text import archives
from gptjax.text.display import direction

# How the figures of metrics.jsonl are drawn; the others get a chart each.
LOSSES = {'val_loss': 'validation', 'train_loss': 'training', 'train_eval_loss': 'training, anew'}
TITLES = {
    'learning_rate': 'Learning rate',
    'grad_norm': 'Norm of the gradient, before clipping',
    'param_norm': 'Norm of the parameters',
    'tokens_per_s': 'Tokens a second',
    'mfu': "Share of the chip's peak (MFU)",
}
NOT_DRAWN = ('step', 'elapsed_s', 'step_ms', 'eval_s', 'save_s', 'compile_s', *LOSSES)
SHARES = {
    'steps': 'optimizer steps',
    'eval': 'evaluation',
    'compile': 'compiling, with the first call of each process',
    'save': 'saving, as far as training waited for it',
    'rest': 'the rest',
}
BASELINES = {
    'model': 'this model',
    'uniform': 'all tokens alike: ln V',
    'unigram': 'unigrams of the training text',
    'bigram': 'bigrams of the training text',
    'xz': 'xz -9e, these tokens alone',
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a checkpoint wrote."""

    step: int
    val_loss: float | None
    passages: list[tuple[str, str]]  # (prompt, text)


@dataclasses.dataclass(frozen=True)
class Model:
    """What only the trained model itself can tell."""

    step: int
    described: str
    figures: Mapping[str, Any]  # of the whole validation split; empty where there is none
    parts: list[tuple[str, int]]
    samples: list[Sample]
    by_token: ByToken | None  # of language models with held-out text


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a report tells."""

    record: Record
    verdict: str
    model: Model | None = None  # None while the run is trained
    others: Sequence[Record] = ()
    verified: str = ''  # a sentence

    def to_json(self) -> str:
        """The figures as one JSON object; of the curves the last and the lowest values."""
        record = self.record
        curves = {
            name: {'last': float(curve.values[-1]), 'lowest': curve.lowest()[1]}
            for name, curve in record.curves.items()
        }
        content = {
            'workdir': str(record.workdir),
            'step': record.last_step,
            'elapsed_s': record.elapsed_s,
            'best': record.best,
            'verdict': self.verdict,
            'verified': self.verified,
            'curves': curves,
            'time': record.shares(),
            'starts': record.starts,
            'damaged': record.damaged,
            'model': self.model,
            'groups': compare.groups([record, *self.others]),
        }
        return json.dumps(_finite(content), allow_nan=False)

    def to_html(self) -> str:
        """The page."""
        record = self.record
        return pages.render(
            *('gptjax.report', 'report'),
            title=f'{record.config.name} in {record.workdir}',
            summary=_summary(record),
            starts=record.starts,
            damaged=record.damaged,
            verdict=self.verdict,
            verified=self.verified,
            compared=_compared([record, *self.others]) if self.others else None,
            charts=charts(record),
            shares=record.shares(),
            share_names=SHARES,
            model=self.model,
            samples=self.model
            and [
                (sample, [(*passage, direction(''.join(passage))) for passage in sample.passages])
                for sample in self.model.samples
            ],
            baseline_names=BASELINES,
            data_card=_data_card(record),
            command=next((start.command for start in record.starts if start.command), ''),
            changed=_changed(record.config),
        )


def charts(record: Record) -> list[Drawn]:
    """The losses over steps and over seconds, then every other figure over steps."""
    losses = [
        Line(words, record.curves[name].steps, record.curves[name].values, kind)
        for kind, (name, words) in enumerate(LOSSES.items())
        if name in record.curves
    ]
    marks = [Mark(f'went on from step {s.step:,}', s.step) for s in record.starts if s.step]
    marks += [Mark(f'checkpoint {step:,} was damaged', step) for step in record.damaged]
    found = []
    if losses:
        marked = [
            *marks,
            *([Mark(f'best: {record.best[1]:.4f}', record.best[0])] if record.best else []),
        ]
        per_step = _tokens_per_step(record)
        found.append(draw('Loss', losses, marks=marked, settled=True, top=(per_step, 'tokens')))
        over_time = [_over_time(line, record.curves['elapsed_s']) for line in losses]
        title = 'Loss by the time spent on training'
        found.append(draw(title, over_time, x_title='seconds', settled=True))
    found += [
        draw(TITLES.get(name, name), [Line(name, curve.steps, curve.values)], marks=marks)
        for name, curve in record.curves.items()
        if name not in NOT_DRAWN
    ]
    return found


def _over_time(line: Line, elapsed: Curve) -> Line:
    seconds = elapsed.values[elapsed.steps.searchsorted(line.x)]
    return dataclasses.replace(line, x=seconds)


def _tokens_per_step(record: Record) -> float:
    """0 if no step was timed."""
    tokens, times = (record.curves.get(name) for name in ('tokens_per_s', 'step_ms'))
    return float(round(tokens.values[-1] * times.values[-1] / 1e3)) if tokens and times else 0.0


def _summary(record: Record) -> str:
    minutes, seconds = divmod(round(record.elapsed_s), 60)
    words = (
        f'Step {record.last_step:,} of {record.config.train.steps:,}, after '
        f'{minutes}:{seconds:02d} minutes of training.'
    )
    if record.best:
        words += f' Lowest validation loss {record.best[1]:.4f}, at step {record.best[0]:,}.'
    return words


def _data_card(record: Record) -> list[tuple[str, str]]:
    data = record.config.data
    entry = archives.table('corpora').get(data.corpus, {}) if not data.path else {}
    licences = {archive['licence'] for archive in entry.get('archives', ())}
    return [
        ('text', data.path or entry.get('title', data.corpus)),
        *([('licence', ', '.join(sorted(licences)))] if licences else []),
        ('held out', data.val_path or f'{data.val_fraction:.1%} ({data.split})'),
        ('tokens', data.tokenizer),
        ('SHA-256', record.data_sha256),
    ]


def _changed(config: Config) -> list[tuple[str, object, object]]:
    defaults = dict(flatten(Config()))
    return [
        (name, value, defaults[name]) for name, value in flatten(config) if value != defaults[name]
    ]


def _compared(records: Sequence[Record]) -> dict[str, Any]:
    lines = [
        Line(str(record.workdir), curve.steps, curve.values, i % 6)
        for i, record in enumerate(records)
        if (curve := record.curves.get('val_loss'))
    ]
    groups = compare.groups(records)
    return {
        'runs': records,
        'chart': draw('Validation loss', lines, settled=True) if lines else None,
        'differing': compare.differing(records),
        'groups': groups,
        'differences': compare.differences(groups),
    }


def _finite(value: Any) -> Any:
    """The same as plain values for JSON, which has no numbers that are not finite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
