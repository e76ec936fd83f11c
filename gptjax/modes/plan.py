"""--mode=plan: memory, communication and time of a training, on devices that need not be there."""

import json
from typing import Any

import jax
import numpy as np

from gptjax.config import Config
from gptjax.console import say
from gptjax.errors import UserError
from gptjax.files import write_atomically
from gptjax.modes.bench import limit
from gptjax.modes.request import Request
from gptjax.plan import compiled, measure, memory, plan, report, roofline, shapes
from gptjax.plan.units import in_bytes, in_seconds
from gptjax.training.steps import run_key

# What a process needs for a step besides its arrays: threads, and scratch memory of products. The
# smallest models need 8 to 30 MB more than the compiler says.
RUNTIME_BYTES = 15e6
MOST_READ = 2**30  # bytes, to measure how fast memory is read


def run(request: Request) -> int:
    """Prints the plan, as one JSON object with --json, and writes plan.json and plan.png."""
    config = request.config
    if config.task != 'language_model':
        raise UserError(
            f'--mode=plan is for task=language_model, and {config.name} is a {config.task}; '
            'use a config such as configs/gpt2.py'
        )
    if request.check:
        found = check(config)
        print(json.dumps(found) if request.as_json else check_table(found))
        return 0
    made = {'command': f'{request.command} --mode=plan', **plan.make(config, say)}
    path = request.workdir / 'plan.json'
    write_atomically(path, json.dumps(made, indent=1).encode() + b'\n')
    report.draw(made, path.with_suffix('.png'))
    print(json.dumps(made) if request.as_json else report.table(made))
    say(f'Written: {path} and {path.with_suffix(".png")}')
    return 0


def check(config: Config) -> dict[str, Any]:
    """Measures a train step on the devices of this machine, and what was to be expected of it.

    Memory is that of all devices together. Time is predicted with the speeds of this machine
    instead of a data sheet's: its matrix products as they are in the step, and reading memory. On a
    CPU the two are added, since its cores do one or the other; elsewhere the slower one decides.

    Returns:
      The device, the mesh, and for each quantity `predicted`, `measured` and `error`, the relative
      difference.
    """
    task, _ = shapes.without_data(config, say)
    config, vocab_size = task.config, task.tokenizer.vocab_size
    found = measure.measured(task, say)
    devices, on_cpu = found['devices'], jax.default_backend() == 'cpu'
    target = memory.target_here(config) if on_cpu else memory.target_of(config)
    closed = memory.of_device(
        *(config, shapes.leaves(task), found['mesh']), vocab_size=vocab_size, target=target
    )
    runtime = RUNTIME_BYTES if on_cpu else 0.0
    total = compiled.total(found['compiled'])
    state = jax.eval_shape(task.init_state, run_key(0))
    batch = {name: np.zeros(x.shape[1:], x.dtype) for name, x in shapes.batches(config).items()}
    say('Measuring the speed of this machine')
    products_s, _ = limit.of_step(task.train_step, state, batch, accumulate=config.train.accumulate)
    bandwidth = limit.bandwidth(min(MOST_READ, closed.parameters + closed.optimizer))
    traffic_s = devices * roofline.traffic(config, closed) / bandwidth
    step = roofline.Step(products_s, traffic_s, 0.0)
    predicted_s = sum(step) if on_cpu else step.step_s
    return {
        'device': found['device'],
        'devices': devices,
        'mesh': found['mesh'],
        'memory_by_compiler': _compare(devices * total + runtime, found['bytes']),
        'memory_closed_form': _compare(devices * closed.total + runtime, found['bytes']),
        'step': _compare(predicted_s, found['seconds']) | step._asdict(),
    }


def _compare(predicted: float, measured: float) -> dict[str, Any]:
    return {'predicted': predicted, 'measured': measured, 'error': predicted / measured - 1}


def check_table(found: dict[str, Any]) -> str:
    """The comparison as lines of text."""
    lines = [
        f'{found["devices"]} x {found["device"]}',
        f'{"":<24}{"predicted":>14}{"measured":>14}{"error":>10}',
    ]
    rows = (
        ('memory, by the compiler', 'memory_by_compiler', in_bytes),
        ('memory, closed form', 'memory_closed_form', in_bytes),
        ('time of a step', 'step', in_seconds),
    )
    for words, name, unit in rows:
        row = found[name]
        figures = f'{unit(row["predicted"]):>14}{unit(row["measured"]):>14}{row["error"]:>+10.1%}'
        lines.append(f'{words:<24}{figures}')
    return '\n'.join(lines)
