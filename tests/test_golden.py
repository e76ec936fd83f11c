"""Work directories of version 0.1.0 load and give the same bits: the contract of every version.

`golden/` holds four of them as archives, with what that version made of them: the hash of all
parameters, logits, sampled texts and the loss. Parameters and texts are compared everywhere.
Logits are compared to the bit with the same JAX, maker of the CPU and vector instructions (others
add up in another order), and to 1e-5 elsewhere.
"""

import functools
import hashlib
import json
import re
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import Config
from gptjax.run import Run
from gptjax.tasks.gan.model import draw_noise
from gptjax.training.checkpoint import flat_leaves
from gptjax.training.steps import run_key
from tests.conftest import replace

GOLDEN = Path(__file__).parent / 'golden'
EXPECTED = json.loads((GOLDEN / 'expected.json').read_text())
RUNS = ('char', 'translation', 'gan', 'gpt2')
SAMPLES = {'gan': {'samples': 50}}
# As for users: bits depend on it.
OPTIMIZED = {'xla_backend_optimization_level': 3}
SAMPLING = {'max_new_tokens': 24, 'temperature': 0.8, 'num_samples': 2}


@pytest.fixture(scope='module', params=RUNS)
def golden(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('golden')
    with tarfile.open(GOLDEN / f'{request.param}.tar.xz') as archive:
        archive.extractall(folder, filter='data')
    asked = replace(Config(), sample=SAMPLING, gan_sampling=SAMPLES.get(request.param, {}))
    run = Run.open(folder / request.param, asked=asked)
    return run, EXPECTED[request.param], np.load(GOLDEN / 'logits.npz')[request.param]


def logits_of(trained):
    compiled = functools.partial(jax.jit, compiler_options=OPTIMIZED)
    task, params = trained.task, trained.params
    match task.config.task:
        case 'language_model':
            ids = task.tokenizer.encode('ROMEO:\nBut, soft')[None]
            return compiled(lambda p: task.model.apply(task.variables(p), ids)[0])(params)
        case 'translation':
            source = np.append(task.tokenizer.encode('abab c'), task.tokenizer.end)[None]
            end = task.target_tokenizer.end
            target = np.append(end, task.target_tokenizer.encode('baba c'))[None]
            lengths = np.array([source.shape[1]], np.int32)
            return compiled(task.model.apply)(params, source, lengths, target)
        case 'gan':
            players = task.adversaries.players
            ids = jnp.asarray(task.sentences.val_NT[:2].astype(np.int32))
            draw = compiled(functools.partial(draw_noise, task.config.model, task.config.gan))
            noise = draw(run_key(0), jnp.arange(2))
            return compiled(lambda p: players.generator.apply(p, ids, noise))(params['generator'])


def sha256(array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_parameters_are_the_same_bits(golden):
    trained, expected, _ = golden
    digest = hashlib.sha256()
    for name, leaf in sorted(flat_leaves(trained.params).items()):
        digest.update(name.encode() + np.asarray(leaf).tobytes())
    assert digest.hexdigest() == expected['params']
    assert trained.step == expected['step']


def made_here():
    """What decides the bits of sums on this machine."""
    about = Path('/proc/cpuinfo').read_text()
    vendor = re.search(r'vendor_id\s*: (\w+)', about)
    vectors = 'avx512f' if 'avx512f' in about else 'avx2'
    return {'jax': jax.__version__, 'vendor': vendor and vendor[1], 'vectors': vectors}


def test_logits_are_the_same(golden):
    trained, expected, logits = golden
    found = np.asarray(logits_of(trained), np.float32)
    np.testing.assert_allclose(found, logits, atol=1e-5)
    if EXPECTED['made_with'] == made_here():
        assert sha256(found) == expected['logits']


def test_samples_are_the_same(golden):
    trained, expected, _ = golden
    prompts = list(dict.fromkeys(sample['prompt'] for sample in expected['samples']))
    assert trained.generate(prompts) == [sample['text'] for sample in expected['samples']]


def test_the_loss_is_the_same(golden):
    trained, expected, _ = golden
    if 'val_loss' in expected:
        assert trained.evaluate().val_loss == pytest.approx(expected['val_loss'], rel=1e-6)
