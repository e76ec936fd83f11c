"""A token file that is larger than memory may be: training maps it and reads what it needs."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

BYTES = 10 * 2**30
STEPS = 200
TRAIN = """
import json, sys, time, types
from pathlib import Path
from gptjax import devices
devices.tune_cpu()
import jax
from gptjax.config import Config, ModelConfig, TrainConfig
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.text.token_files import Corpus, open_split
from gptjax.modes.bench.machine import resident_bytes
from gptjax.training.loop import StepRunner, initial_state
from gptjax.parallel.mesh import Layout

config = Config(model=ModelConfig(block_size=64), train=TrainConfig(batch_size=16))
split = open_split(Path(sys.argv[1]), 'uint16', 0, windows=True)
corpus = Corpus(types.SimpleNamespace(vocab_size=65), split, split, '')
task = LanguageModel(config, corpus)
layout = Layout(config.mesh, 16)
state = initial_state(task, layout)
runner = StepRunner(task, layout, state)
times = []
for i in range(int(sys.argv[2])):
    began = time.perf_counter()
    state, metrics, _ = runner.run(state, i, 1)
    jax.block_until_ready(metrics)
    times.append(time.perf_counter() - began)
times.sort()
print(json.dumps({'rss': resident_bytes(), 'median_s': times[len(times) // 2]}))
"""


@pytest.mark.slow(minutes=2)
def test_a_file_of_10_gigabytes_takes_no_memory(tmp_path):
    figures = {}
    for name, size in (('small', 2**20), ('huge', BYTES)):
        path = tmp_path / name
        with open(path, 'wb') as file:
            file.truncate(size)  # Sparse: it takes no place on the disk.
        done = subprocess.run(
            [sys.executable, '-c', TRAIN, str(path), str(STEPS)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        figures[name] = json.loads(done.stdout)
    print(figures)
    assert figures['huge']['rss'] < 1.5e9
    assert figures['huge']['rss'] < figures['small']['rss'] + 0.2e9
