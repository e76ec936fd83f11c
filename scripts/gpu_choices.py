"""What the GPU path chose for a train step, and what each choice gains, measured in turns.

  python scripts/gpu_choices.py --config=configs/gpt2.py:124m --workdir=runs/gpu_check \\
    --config.data.path=text.txt

Writes WORKDIR/choices.json after each comparison; what is there already is not measured again. The
kernels are those of the compiled program: which attention, which matrix products, in which types.
`ratio` is the default's speed over the alternative's: above 1 the default is right.
"""

import collections
import dataclasses
import json
import os
import re
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# name: (knobs, XLA_FLAGS) of the alternative to the default
ALTERNATIVES = {
    "XLA's attention": ({'model.attention': 'xla'}, ''),
    'all logits at once': ({'train.logits_chunk': 0}, ''),
    'half of the chunk of logits': ({'train.logits_chunk': 128}, ''),
    'vocabulary as it is': ({'model.vocab_multiple': 1}, ''),
    'five steps a call': ({'train.steps_per_call': 5}, ''),
    'float32': ({'model.dtype': 'float32'}, ''),
    "optimizer's state in the host's memory": ({'mesh.offload': True}, ''),
    'no Triton GEMM': ({}, '--xla_gpu_enable_triton_gemm=false'),
    'latency hiding scheduler': ({}, '--xla_gpu_enable_latency_hiding_scheduler=true'),
}


def kernels(task) -> dict[str, int]:
    """How often the compiled train step calls each library, and multiplies in each type."""
    import jax

    from gptjax.parallel.mesh import Layout
    from gptjax.training.loop import abstract_state

    train = task.config.train
    layout = Layout(task.config.mesh, train.batch_size // train.accumulate)
    state = abstract_state(task, layout)
    batch = layout.put(task.train_batch(0))
    text = jax.jit(task.train_step, donate_argnums=0).lower(state, batch).compile().as_text()
    found = re.findall(r'custom_call_target="([^"]+)"', text)
    found += [f'{kind} product' for kind in re.findall(r'= (\w+)\[[^=]* dot\(', text)]
    return dict(collections.Counter(found).most_common())


def compare(task, name: str, base) -> dict:
    """Milliseconds a step of the default (`base`, a worker) and of an alternative, in turns."""
    from gptjax.modes.bench import worker
    from gptjax.modes.bench.run import JAX, make_job
    from gptjax.modes.bench.turns import in_turns

    knobs, xla_flags = ALTERNATIVES[name]
    other_task = dataclasses.replace(task, config=changed(task.config, knobs))
    env = {'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {xla_flags}'.strip()}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        # Weights of its own: another padding of the vocabulary has other shapes.
        job = make_job(other_task, Path(folder))
        other = stack.enter_context(worker.Worker(JAX, job, env))
        timers = {
            'default': lambda n: base.call('train', steps=n),
            'alternative': lambda n: other.call('train', steps=n),
        }
        tokens = task.tokens_per_step()
        sides = in_turns(timers, task.config, tokens, trial=3)
    pairs = [a / b for a, b in zip(*(sides[side]['all'] for side in timers), strict=True)]
    ms = {f'{side}_ms': 1e3 * tokens / sides[side]['tokens_per_s'] for side in timers}
    return {**ms, 'ratio': statistics.median(pairs), 'ratios': pairs}


def changed(config, knobs: dict):
    """A configuration with some knobs, as 'model.dtype', changed."""
    for name, value in knobs.items():
        section, knob = name.split('.')
        part = dataclasses.replace(getattr(config, section), **{knob: value})
        config = dataclasses.replace(config, **{section: part})
    return config


def main(argv: list[str]) -> None:
    """Measures what the file does not have yet."""
    del argv
    from gptjax import tasks
    from gptjax.chips import hardware
    from gptjax.config import from_config_dict
    from gptjax.console import say
    from gptjax.files import write_atomically
    from gptjax.modes.bench import worker
    from gptjax.modes.bench.run import JAX, make_job

    path = Path(flags.FLAGS.workdir) / 'choices.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    result = json.loads(path.read_text()) if path.exists() else {'hardware': hardware()}

    def save() -> None:
        write_atomically(path, json.dumps(result, indent=1).encode() + b'\n')

    task = tasks.create(from_config_dict(flags.FLAGS.config), say)
    if 'kernels' not in result:
        result['kernels'] = kernels(task)
        save()
    missing = [name for name in ALTERNATIVES if name not in result]
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(task, Path(folder))
        with worker.Worker(JAX, job) as base:
            for name in missing:
                say(f'the default against: {name}')
                try:
                    result[name] = compare(task, name, base)
                except Exception as error:  # One that cannot run must not cost the others.
                    result[name] = {'error': str(error)}
                save()


if __name__ == '__main__':
    from ml_collections import config_flags

    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # Several processes share it.
    config_flags.DEFINE_config_file('config')
    flags.DEFINE_string('workdir', 'runs/gpu_check', 'Folder of choices.json.')
    app.run(main)
