"""Time to quality: configs/char.py:small against 2000 PyTorch steps of nanoGPT's recipe, in turns.

  python scripts/race.py [--data=FILE] [--out=runs/race]

PyTorch takes half of its steps, then ours trains from process start (imports and compilation
included), then PyTorch takes the other half. Every checkpoint of ours is then evaluated over the
whole validation split; its time is when it was complete on disk. FILE is tiny Shakespeare, if it
is not to be fetched. Writes race.json, prints a table.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from gptjax import devices  # noqa: E402, the path has to be there first

TWIN_STEPS = 2000  # of nanoGPT's laptop recipe
TARGETS = ((1.88, 0.25), (1.70, 1.0))  # nats per character, and in which part of their time


def main() -> None:
    """Runs the race."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', help='a file with tiny Shakespeare; fetched without')
    parser.add_argument('--out', type=Path, default=ROOT / 'runs' / 'race', help='a new folder')
    parser.add_argument('--cold', action='store_true', help='compile anew, as on a first start')
    arguments = parser.parse_args()
    data = [f'--config.data.path={arguments.data}'] if arguments.data else []
    workdir = arguments.out / 'small'
    if workdir.exists():
        sys.exit(f'{workdir} exists; name another --out')
    with twin(data) as train_twin:
        train_twin(20)
        twin_s = train_twin(TWIN_STEPS // 2)
        began = time.time()
        train_ours(workdir, data, arguments.cold)
        ours_s = time.time() - began
        twin_s += train_twin(TWIN_STEPS // 2)
    curve = list(whole_split_losses(workdir, began))
    result = {'twin_s': twin_s, 'twin_steps': TWIN_STEPS, 'ours_s': ours_s, 'curve': curve}
    print(f'{TWIN_STEPS} PyTorch steps: {twin_s:.1f} s; ours, all in all: {ours_s:.1f} s')
    print(f'{"step":>6}{"seconds":>9}{"of theirs":>11}{"whole-split loss":>18}')
    for point in curve:
        share = point['seconds'] / twin_s
        print(f'{point["step"]:>6}{point["seconds"]:>9.1f}{share:>11.2f}{point["val_loss"]:>18.4f}')
    for loss, share in TARGETS:
        first = next((p['seconds'] / twin_s for p in curve if p['val_loss'] <= loss), None)
        result[f'share_to_{loss}'] = first
        found = 'never' if first is None else f'after {first:.3f} of their time'
        print(f'{loss} nats: {found} (wanted: {share})')
    (arguments.out / 'race.json').write_text(json.dumps(result, indent=1) + '\n')


def load(config_file: str, argument: str, data: list[str]):
    """The resolved configuration of a config file with the data flag applied."""
    from gptjax.config import from_config_dict

    space: dict = {}
    exec(compile((ROOT / config_file).read_text(), config_file, 'exec'), space)
    config = space['get_config'](argument)
    config.data.corpus = 'tinyshakespeare'
    if data:
        config.data.path = data[0].partition('=')[2]
    return from_config_dict(config)


@contextlib.contextmanager
def twin(data: list[str]):
    """A function: steps of the PyTorch twin -> the seconds that they took."""
    from gptjax import tasks
    from gptjax.modes.bench.run import TWIN, make_job
    from gptjax.modes.bench.worker import Worker

    task = tasks.create(load('configs/char_nanogpt.py', 'cpu', data), print)
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(task, Path(folder))
        with Worker(TWIN, job) as worker:
            yield lambda steps: worker.call('train', steps=steps)


def train_ours(workdir: Path, data: list[str], cold: bool) -> None:
    """The README's command, with a checkpoint every 50 steps."""
    flags = ['--config=configs/char.py:small', '--mode=train', f'--workdir={workdir.resolve()}']
    flags += data or ['--config.data.corpus=tinyshakespeare']
    flags += ['--config.train.save_every=50', '--config.train.keep=1000']
    flags += ['--nocompilation_cache'] if cold else []
    subprocess.run([sys.executable, 'main.py', *flags], cwd=ROOT, check=True)


def whole_split_losses(workdir: Path, began: float):
    """For each checkpoint: its step, when it was complete, and its whole-split loss."""
    import jax

    from gptjax import run_files, tasks
    from gptjax.config import MeshConfig
    from gptjax.file_sums import MANIFEST
    from gptjax.parallel.mesh import Layout

    task = tasks.load(run_files.load_config(workdir), workdir)
    layout = Layout(MeshConfig(), jax.device_count())
    checkpoints = run_files.checkpoints(workdir)
    for step in reversed(checkpoints.saved()):
        params = run_files.restore_step(task, workdir, step, layout)
        loss = task.examine(params, layout).val_loss
        seconds = (checkpoints.folder / str(step) / MANIFEST).stat().st_mtime - began
        yield {'step': step, 'seconds': seconds, 'val_loss': loss}


if __name__ == '__main__':
    devices.tune_cpu()
    main()
