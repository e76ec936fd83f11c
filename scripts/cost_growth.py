"""How the cost of a train step grows: one knob at a time, tokens/s and memory.

  python scripts/cost_growth.py [--out=docs]

Every point is a process of its own, so that its peak memory is its own: a few steps on random
tokens to compile, then some seconds of them, the median of which counts. Writes cost_growth.json
and cost_growth.png, and prints the table of docs/performance.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from gptjax import devices  # noqa: E402, the path has to be there first

BASE = {'block_size': 64, 'n_embd': 128, 'n_layer': 4, 'batch_size': 16, 'vocab_size': 65}
AXES = {
    'block_size': (64, 128, 256, 512, 1024, 2048, 4096),
    'n_embd': (64, 128, 256, 512),
    'n_layer': (1, 2, 4, 8, 16),
    'batch_size': (2, 4, 8, 16, 32, 64),
    'vocab_size': (65, 1024, 8192, 32768),
}
TOKENS = 1024  # of a step where the block grows: the batch shrinks, down to 2 rows
SECONDS = 4.0


def main() -> None:
    """Measures all points, or the one that is given as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=ROOT / 'docs')
    parser.add_argument('--point', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(measure(json.loads(arguments.point))))
        return
    points = []
    print('| | tokens/s | ms a step | peak memory | FLOP a token | GFLOP/s |')
    print('|---|---|---|---|---|---|')
    for axis, values in AXES.items():
        for value in values:
            point = {**BASE, axis: value}
            if axis == 'block_size':
                point['batch_size'] = max(2, TOKENS // value)
            command = [sys.executable, __file__, f'--point={json.dumps(point)}']
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            figures = json.loads(done.stdout)
            points.append({'axis': axis, **point, **figures})
            gflops = figures['tokens_per_s'] * figures['flops_per_token'] / 1e9
            print(
                f'| {axis}={value} | {figures["tokens_per_s"]:,.0f} | {figures["step_ms"]:.1f} | '
                f'{figures["peak_bytes"] / 1e6:,.0f} MB | '
                f'{figures["flops_per_token"] / 1e6:.1f} M | {gflops:.0f} |',
                flush=True,
            )
    (arguments.out / 'cost_growth.json').write_text(json.dumps(points, indent=1) + '\n')
    draw(points, arguments.out / 'cost_growth.png')


def measure(point: dict) -> dict:
    """Tokens a second and peak memory of training one model on random tokens."""
    import jax
    import numpy as np

    from gptjax.config import Config, ModelConfig, TrainConfig
    from gptjax.modes.bench.machine import resident_bytes
    from gptjax.parallel.mesh import Layout
    from gptjax.tasks.language_model.task import LanguageModel
    from gptjax.text.token_files import Corpus
    from gptjax.training.loop import StepRunner, initial_state

    point = dict(point)
    batch_size, vocab_size = point.pop('batch_size'), point.pop('vocab_size')
    config = Config(
        model=ModelConfig(n_head=point['n_embd'] // 32, **point),
        train=TrainConfig(batch_size=batch_size, steps_per_call=1),
    )
    tokens = np.random.default_rng(0).integers(0, vocab_size, 100_000).astype(np.uint16)
    split = types.SimpleNamespace(tokens=tokens)
    tokenizer = types.SimpleNamespace(vocab_size=vocab_size)
    task = LanguageModel(config, Corpus(tokenizer, split, split, ''))
    layout = Layout(config.mesh, batch_size)
    state = initial_state(task, layout)
    runner = StepRunner(task, layout, state)
    times: list[float] = []
    done, end = 0, None
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        state, metrics, n = runner.run(state, done, 1)
        jax.block_until_ready(metrics)
        done += n
        if done > 2:  # The first ones compile and touch their memory for the first time.
            times.append(time.perf_counter() - began)
            end = end or time.perf_counter() + SECONDS
    step_s = statistics.median(times)
    return {
        'tokens_per_s': task.tokens_per_step() / step_s,
        'step_ms': 1e3 * step_s,
        'flops_per_token': task.flops_per_token(),
        'peak_bytes': (jax.devices()[0].memory_stats() or {}).get(
            'peak_bytes_in_use', resident_bytes()
        ),
    }


def draw(points: list[dict], path: Path) -> None:
    """A panel for each knob: tokens/s, and memory on a second axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3).flat
    panels[-1].axis('off')
    for axes, axis in zip(panels, AXES, strict=False):
        chosen = [point for point in points if point['axis'] == axis]
        values = [point[axis] for point in chosen]
        memory = axes.twinx()
        axes.plot(values, [p['tokens_per_s'] for p in chosen], 'o-', color='#1f4e79')
        memory.plot(values, [p['peak_bytes'] / 1e6 for p in chosen], 's--', color='#c0504d')
        axes.set_xscale('log', base=2)
        axes.set_xticks(values, [f'{value:,}' for value in values], rotation=45)
        axes.set_yscale('log')
        memory.set_ylim(bottom=0)
        axes.set_title(axis)
        axes.set_ylabel('tokens/s (line)', color='#1f4e79')
        memory.set_ylabel('peak memory, MB (dashes)', color='#c0504d')
        axes.spines['top'].set_visible(False)
        memory.spines['top'].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    devices.tune_cpu()
    main()
