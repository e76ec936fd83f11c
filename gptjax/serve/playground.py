"""What the playground in the browser needs: its page, and the models in JSON."""

import dataclasses
from typing import Any

from gptjax import pages, run_files
from gptjax.serve.fields import Fields
from gptjax.serve.registry import Registry

SCRIPTS = ('api', 'curve', 'tokens', 'pictures', 'columns', 'settings', 'start')
MOST_POINTS = 300  # of a curve
TEXT = 200  # tokens to begin with
# Fields with a control of their own, in this order: the step of a slider, and its ends where the
# field's own bounds are too far apart for one.
CONTROLS: dict[str, tuple[float, float | None, float | None]] = {
    'max_tokens': (1, 1, 1000),
    'temperature': (0.05, None, None),
    'top_k': (1, 0, 100),
    'top_p': (0.01, 0.01, 1),
    'min_p': (0.01, None, None),
    'repetition_penalty': (0.05, 0.5, 3),
    'presence_penalty': (0.1, None, None),
    'frequency_penalty': (0.1, None, None),
    'n': (1, 1, 8),
}


def page() -> str:
    """The page, the same for all models."""
    return pages.render(
        'gptjax.serve', 'playground', scripts=SCRIPTS, calls="'self'", title='gptjax playground'
    )


def describe(registry: Registry) -> dict[str, Any]:
    """The models with their curves and figures, and the controls."""
    return {
        'controls': [_control(name, *slider) for name, slider in CONTROLS.items()],
        'models': [_model(registry, name) for name in registry.bases],
    }


def _control(name: str, step: float, low: float | None, high: float | None) -> dict[str, Any]:
    field = next(field for field in dataclasses.fields(Fields) if field.name == name)
    bounds = field.metadata
    return {
        'name': name,
        'meaning': bounds['meaning'],
        'value': TEXT if name == 'max_tokens' else field.default,
        'step': step,
        'low': bounds['low'] if low is None else low,
        'high': bounds['high'] if high is None else high,
    }


def _model(registry: Registry, name: str) -> dict[str, Any]:
    run = registry.bases[name].run
    rows = run.metrics
    losses = [(row['step'], row['train_loss']) for row in rows if 'train_loss' in row]
    thin = losses[:: -(-len(losses) // MOST_POINTS) or 1]
    checkpoints = run_files.checkpoints(run.workdir)
    model = run.config.model
    return {
        'name': name,
        'task': run.config.task,
        'step': run.step,
        'train': thin,
        'val': [(row['step'], row['val_loss']) for row in rows if 'val_loss' in row],
        'checkpoints': sorted(checkpoints.saved()),
        'card': {
            'recipe': run.config.name,
            'work directory': str(run.workdir),
            'task': run.config.task,
            'model': run.task.describe_model(),
            'layers, heads, width': f'{model.n_layer}, {model.n_head}, {model.n_embd}',
            'block_size': model.block_size,
            'tokens': f'{run.task.tokenizer.kind}, {run.task.tokenizer.vocab_size:,}',
            'loss at this step': _loss(rows, run.step),
        },
    }


def _loss(rows: list[dict[str, Any]], step: int) -> str:
    found = [row['val_loss'] for row in rows if row['step'] == step and 'val_loss' in row]
    return f'{found[-1]:.4f} nats per token (validation)' if found else 'not measured'
