"""The real train step compiled ahead of time for simulated devices: memory and collectives.

`compile_step` starts a process with as many simulated CPU devices as are asked for, since JAX
cannot change their number once it has started. Nothing is computed there, and no data is needed.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gptjax.config import from_json, to_json
from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.parallel.mesh import Layout, Sizes
from gptjax.plan import hlo, shapes
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.training.loop import abstract_state, multi_step_on

WHOLE = 3  # blocks; a model of more is compiled with two numbers of blocks and extrapolated
PARTS = ('argument', 'output', 'temp', 'alias')  # of jax's memory_analysis


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What XLA's CPU compiler made of a train step, of one device."""

    layers: tuple[int, ...]  # blocks of what was compiled; two: extrapolated to all
    memory: dict[str, float]  # bytes, by PARTS
    collectives: tuple[hlo.Collective, ...]


def total(memory: Mapping[str, float]) -> float:
    """Bytes of the state, the batch and all that the step needs besides, from those by PARTS."""
    return memory['argument'] + memory['output'] + memory['temp'] - memory['alias']


def compile_step(task: LanguageModel, sizes: Sizes, say: Say) -> Compiled:
    """Compiles a task's train step for a mesh of these sizes, in a process of its own.

    More than three blocks are not compiled: memory and collectives of two and of three are
    extrapolated, since every further block adds the same.

    Raises:
      UserError: the process died, for example since it had too little memory.
    """
    n_layer = task.config.model.n_layer
    layers = (n_layer,) if n_layer <= WHOLE else (WHOLE - 1, WHOLE)
    devices = sizes['data'] * sizes['fsdp'] * sizes['tensor']
    asked = {
        'config': to_json(task.config),
        'vocab_size': task.tokenizer.vocab_size,
        'sizes': dict(sizes),
        'layers': layers,
    }
    say(
        f'Compiling the train step for {devices} simulated device{"s" * (devices > 1)}'
        + (f', with {layers[0]} and {layers[1]} of {n_layer} blocks' if len(layers) > 1 else '')
    )
    environment = {
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_CPU_DEVICES': str(devices),
        # Nothing is run: LLVM need not optimise, which takes a third of the time.
        'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} --xla_backend_optimization_level=0',
    }
    what, remedy = f'compiling for {devices} devices', 'use fewer plan.devices'
    found = answer('gptjax.plan.compiled', asked, what=what, remedy=remedy, environment=environment)
    return _extrapolate(found, layers, n_layer)


def answer(
    module: str,
    asked: dict[str, Any],
    *,
    what: str,
    remedy: str,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """What a module answers as a process of its own; both sides are JSON.

    Raises UserError if the process died.
    """
    done = subprocess.run(
        [sys.executable, '-m', module],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ['without a word'])[-1]
        raise UserError(f'{what} ended with status {done.returncode} ({reason}); {remedy}')
    return json.loads(done.stdout)


def _extrapolate(found: Sequence[dict[str, Any]], layers: tuple[int, ...], n: int) -> Compiled:
    """What n blocks have, from what one or two smaller numbers of blocks have."""
    read = [[hlo.Collective(*row) for row in part['collectives']] for part in found]
    if len(layers) == 1:
        return Compiled(layers, found[0]['memory'], tuple(read[0]))
    more = (n - layers[0]) / (layers[1] - layers[0])
    first, second = (part['memory'] for part in found)
    memory = {key: first[key] + more * (second[key] - first[key]) for key in PARTS}
    return Compiled(layers, memory, tuple(hlo.extrapolated(read[0], read[1], more)))


def lowered(task: LanguageModel, layout: Layout) -> jax.stages.Lowered:
    """The train step of a call that does one step, for the devices of a layout."""
    state = abstract_state(task, layout)
    rows = NamedSharding(layout.mesh, P(None, ('data', 'fsdp')))
    batches = jax.tree.map(lambda x: x.update(sharding=rows), shapes.batches(task.config))
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = jax.jit(multi_step_on(layout, task), donate_argnums=0, out_shardings=(shardings, None))
    return step.lower(state, batches, 1)


def measure(task: LanguageModel, layout: Layout) -> dict[str, Any]:
    """Compiles the train step: bytes by PARTS, and the collectives."""
    compiled = lowered(task, layout).compile()
    analysis = compiled.memory_analysis()
    return {
        'memory': {part: getattr(analysis, f'{part}_size_in_bytes') for part in PARTS},
        'collectives': hlo.read(compiled.as_text() or '', layout.mesh.shape),
    }


def main() -> None:
    """The process: an object on standard input, a list with an object for each model on output."""
    asked = json.load(sys.stdin)
    config = from_json(asked['config'])
    rows = config.train.batch_size // config.train.accumulate
    layout = Layout(dataclasses.replace(config.mesh, **asked['sizes']), rows)
    task = shapes.of_vocabulary(config, asked['vocab_size'])
    found = [measure(shapes.with_layers(task, n_layer), layout) for n_layer in asked['layers']]
    print(json.dumps(found))


if __name__ == '__main__':
    main()
