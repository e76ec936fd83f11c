"""The memory and time that a train step really takes here, in a process of its own.

The process compiles, notes its memory, puts a state of constants on the devices and does some
steps on random tokens: its largest memory during the steps, less what it had before, is the step's.
"""

import ctypes
import gc
import json
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gptjax.config import from_json, to_json
from gptjax.console import Say
from gptjax.parallel.mesh import Layout
from gptjax.plan import compiled, shapes
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.training.loop import abstract_state, layout_of

LEAST_S = 2.0  # of the timed steps
LEAST_STEPS = 3


def measured(task: LanguageModel, say: Say) -> dict[str, Any]:
    """Devices, mesh, `bytes` of all devices, seconds of a step; and what the compiler said.

    Raises:
      UserError: the process died, for example since it had too little memory.
    """
    say(f'Measuring {LEAST_STEPS} or more steps here')
    asked = {'config': to_json(task.config), 'vocab_size': task.tokenizer.vocab_size}
    remedy = 'use a smaller model or train.batch_size'
    return compiled.answer('gptjax.plan.measure', asked, what='measuring a step', remedy=remedy)


def main() -> None:
    """The process: a JSON object on standard input, another on standard output."""
    asked = json.load(sys.stdin)
    task = shapes.of_vocabulary(from_json(asked['config']), asked['vocab_size'])
    layout = layout_of(task)
    step = compiled.lowered(task, layout).compile()
    analysis = step.memory_analysis()
    random = np.random.default_rng(0)
    host = {
        name: random.integers(0, asked['vocab_size'], x.shape).astype(np.int32)
        for name, x in shapes.batches(task.config).items()
    }
    host['lengths'][:] = task.config.model.block_size
    batches = layout.put(host, axis=1)
    before = _resident()
    state = jax.tree.map(
        lambda x: jax.device_put(np.full(x.shape, 0.01).astype(x.dtype), x.sharding),
        abstract_state(task, layout),
    )
    jax.block_until_ready(state)
    _resident()
    times: list[float] = []
    while len(times) <= LEAST_STEPS or sum(times[1:]) < LEAST_S:
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batches, 1))
        times.append(time.perf_counter() - began)
    print(
        json.dumps(
            {
                'device': layout.mesh.devices.flat[0].device_kind,
                'devices': layout.mesh.size,
                'mesh': dict(layout.mesh.shape),
                'bytes': _most(layout) - before,
                'seconds': statistics.median(times[1:]),
                'compiled': {
                    part: getattr(analysis, f'{part}_size_in_bytes') for part in compiled.PARTS
                },
            }
        )
    )


def _resident() -> int:
    """Bytes of main memory in use, without what is only kept for later; the peak starts anew."""
    if jax.default_backend() != 'cpu':
        return 0
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')
    return _status('VmRSS')


def _most(layout: Layout) -> int:
    """The largest memory so far: of the process on a CPU, otherwise of all devices together."""
    if jax.default_backend() == 'cpu':
        return _status('VmHWM')
    stats = [device.memory_stats() or {} for device in layout.mesh.devices.flat]
    return sum(found.get('peak_bytes_in_use', 0) for found in stats)


def _status(name: str) -> int:
    (kilobytes,) = re.findall(rf'^{name}:\s+(\d+) kB', Path('/proc/self/status').read_text(), re.M)
    return 1024 * int(kilobytes)


if __name__ == '__main__':
    main()
