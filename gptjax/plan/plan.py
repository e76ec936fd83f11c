"""A plan: memory, time and communication of a training, from its configuration alone."""

import datetime
import math
from collections.abc import Sequence
from typing import Any

from gptjax.chips import CHIPS
from gptjax.config import Config
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.parallel.mesh import mesh_sizes
from gptjax.plan import communication, compiled, memory, roofline, search, shapes
from gptjax.plan.hlo import Collective
from gptjax.plan.search import Candidate

BEST = 5  # meshes listed


def make(config: Config, say: Say) -> dict[str, Any]:
    """The content of plan.json: SI units, bytes of one device, seconds of one optimizer step.

    Raises:
      UserError: the mesh does not fit `plan.devices`, the chip has no figure that is needed, or
        the compiler failed.
    """
    rows = config.train.batch_size // config.train.accumulate
    sizes = mesh_sizes(config.mesh, rows, config.plan.devices)
    task, how = shapes.without_data(config, say)
    config, vocab_size = task.config, task.tokenizer.vocab_size
    target, chip = memory.target_of(config), CHIPS[config.plan.chip]
    if config.mesh.offload and not chip.host_bytes_per_s:
        known = ', '.join(name for name, other in CHIPS.items() if other.host_bytes_per_s)
        raise UserError(
            f'mesh.offload=True, and how fast plan.chip={config.plan.chip} reads the memory of its '
            f'host is not in the table; leave it out, or plan for one of {known}'
        )
    arrays = shapes.leaves(task)
    steps, tokens = config.train.steps, task.tokens_per_step()
    flops = shapes.flops_per_token(task) * tokens
    found = search.evaluate(task, arrays, sizes, flops=flops)
    devices = sizes['data'] * sizes['fsdp'] * sizes['tensor']
    if devices < config.plan.devices:
        say(
            f'Only {devices} of {config.plan.devices} devices can share {rows} rows at a time; '
            'the meshes below use all'
        )
    dtype = 'float32' if target.itemsize == memory.FLOAT32 else 'bfloat16'
    made = compiled.compile_step(shapes.with_model(task, dtype=dtype, attention='auto'), sizes, say)
    say('Comparing meshes')
    closed = communication.collectives(config, arrays, sizes, vocab_size=vocab_size, target=target)
    return {
        'date': datetime.date.today().isoformat(),
        'name': config.name,
        'chip': config.plan.chip,
        'devices': devices,
        'parameters': sum(x.times * math.prod(x.shape) for x in arrays if x.is_parameter),
        'vocabulary': {'size': vocab_size, 'known': how},
        'computes_in': dtype,
        'flash_attention': target.flash,
        **_candidate(found, flops, chip.peak_flops, tokens),
        'chip_memory_bytes': chip.memory_bytes,
        'activations': {
            remat: memory.activations(shapes.with_train(config, remat=remat), sizes, target)
            for remat in search.REMAT
        },
        'cache_of_a_text': memory.cache(config, target),
        'flops': {'token': flops / tokens, 'step': flops},
        'bound_by': roofline.in_words(found.step, chip),
        'training': {
            'steps': steps,
            'tokens': steps * tokens,
            'hours': steps * found.step.step_s / 3600,
        },
        'collectives': _rows(closed),
        'compiled': {
            'blocks': made.layers,
            'extrapolated_to': config.model.n_layer if len(made.layers) > 1 else None,
            'bytes': made.memory | {'total': compiled.total(made.memory)},
            'collectives': _rows(made.collectives),
            'communication_s': communication.seconds(made.collectives, sizes, chip),
        },
        'best': [
            _candidate(other, flops, chip.peak_flops, tokens) for other in search.best(task, BEST)
        ],
    }


def _candidate(found: Candidate, flops: float, peak: float, tokens: int) -> dict[str, Any]:
    devices = found.sizes['data'] * found.sizes['fsdp'] * found.sizes['tensor']
    step = found.step
    return {
        'mesh': dict(found.sizes),
        'accumulate': found.accumulate,
        'remat': found.remat,
        'offload': found.memory.offload,
        'fits': found.fits,
        'bytes': found.memory.parts() | {'total': found.memory.total},
        'seconds': step._asdict() | {'step_s': step.step_s},
        'mfu': flops / (devices * peak * step.step_s),
        'tokens_per_s': tokens / step.step_s,
    }


def _rows(found: Sequence[Collective]) -> list[dict[str, Any]]:
    return [x._asdict() for x in sorted(found, key=lambda x: -x.bytes)]
