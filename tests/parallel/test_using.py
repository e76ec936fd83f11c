"""A trained model used on a mesh: the same texts and figures, with its parameters in parts."""

import dataclasses
import math
import re
import tarfile

import jax
import pytest

import gptjax
from gptjax.config import MeshConfig, SampleConfig
from gptjax.errors import UserError
from gptjax.generation.decode import decode_chunk
from gptjax.parallel.mesh import rounded_up
from tests.test_golden import GOLDEN

MESHES = [MeshConfig(fsdp=4), MeshConfig(tensor=2), MeshConfig(2, 2, 2)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    for name in ('char', 'translation', 'gpt2', 'gan'):
        with tarfile.open(GOLDEN / f'{name}.tar.xz') as archive:
            archive.extractall(folder, filter='data')
    return folder


def opened(workdir, mesh):
    asked = dataclasses.replace(gptjax.load(workdir).config, mesh=mesh)
    return gptjax.Run.open(workdir, asked=asked)


@pytest.mark.parametrize('mesh', MESHES)
def test_a_language_model_continues_and_scores_as_on_one_device(folder, mesh):
    one, many = gptjax.load(folder / 'char'), opened(folder / 'char', mesh)
    for prompts in ('ROMEO:', ['And', 'But the', 'O']):
        asked = {'max_new_tokens': 70, 'seed': 3}  # Past the end of a block of 64.
        assert many.generate(prompts, **asked) == one.generate(prompts, **asked)
    assert many.evaluate().figures['val_loss'] == pytest.approx(one.evaluate().figures['val_loss'])
    text = 'To be, or not'
    assert many.score(text).log_probs == pytest.approx(one.score(text).log_probs, abs=1e-5)


@pytest.mark.parametrize('mesh', [MeshConfig(fsdp=4), MeshConfig(data=1, tensor=4)])
@pytest.mark.parametrize('beam', [1, 3])
def test_a_line_is_translated_as_on_one_device(folder, mesh, beam):
    one = gptjax.load(folder / 'translation')
    many = opened(folder / 'translation', mesh)
    lines = ['abc', 'cab', 'b']
    found = many.generate(lines, beam=beam, temperature=1.0)
    assert found == one.generate(lines, beam=beam, temperature=1.0)


def test_the_gan_writes_and_is_judged_as_on_one_device(folder):
    one, many = gptjax.load(folder / 'gan'), opened(folder / 'gan', MeshConfig(fsdp=2, tensor=2))
    assert many.generate(num_samples=3, seed=1) == one.generate(num_samples=3, seed=1)
    assert many.evaluate().val_loss == pytest.approx(one.evaluate().val_loss, rel=1e-4)


def on_first_device(params) -> float:
    """The share of the parameters that the first device stores."""
    leaves = jax.tree.leaves(params)
    stored = sum(math.prod(x.sharding.shard_shape(x.shape)) for x in leaves)
    return stored / sum(x.size for x in leaves)


def test_each_device_stores_its_part_of_a_model(folder):
    assert on_first_device(gptjax.load(folder / 'gpt2').params) == 1
    run = opened(folder / 'gpt2', MeshConfig(fsdp=2))
    variables, _ = run.task.placed(run.params, SampleConfig(), rows=2)
    for params in (run.params, variables):  # Biases and norms are whole, and a third of this one.
        assert on_first_device(params) < 0.65


def decoding(run, texts):
    """An engine with some texts in it."""
    engine = run.task.engine(run.params, SampleConfig(max_new_tokens=40, chunk=8), rows=texts)
    for first in range(texts):
        engine.submit([first, 2, 3], max_new_tokens=40)
    return engine


@pytest.mark.parametrize('mesh', [MeshConfig(data=1, tensor=2), MeshConfig(1, 2, 2)])
def test_each_device_stores_its_part_of_the_cache(folder, mesh):
    engine = decoding(opened(folder / 'char', mesh), 4)
    for _ in range(3):
        engine.step()
        cache = engine._device_rows.cache
        assert on_first_device((cache.k_MSH, cache.v_MSH)) == 1 / (mesh.fsdp * mesh.tensor)


def test_decoding_moves_activations_and_neither_parameters_nor_the_cache(folder, monkeypatch):
    programs = []

    def recorded(*args, **how):
        programs.append(decode_chunk.lower(*args, **how).compile().as_text())
        return decode_chunk(*args, **how)

    monkeypatch.setattr('gptjax.generation.engine.decode_chunk', recorded)
    run = opened(folder / 'char', MeshConfig(data=1, tensor=2))
    engine = decoding(run, 4)
    engine.step()
    moved = re.findall(r'= \w+\[([\d,]+)\]\S* (?:all-gather|all-to-all)\(', programs[0])
    shapes = {tuple(map(int, shape.split(','))) for shape in moved}
    stay = {x.shape for x in jax.tree.leaves((run.params, engine._device_rows.cache)) if x.ndim > 1}
    assert shapes and not shapes & stay


def test_texts_after_the_first_compile_nothing(folder):
    run = opened(folder / 'char', MeshConfig(tensor=2))
    run.generate('ROMEO:', max_new_tokens=100)
    compiled = decode_chunk._cache_size()
    run.generate('JULIET', max_new_tokens=100)
    assert decode_chunk._cache_size() == compiled


def test_a_run_of_a_larger_mesh_opens_on_the_devices_that_are_there(folder):
    """The mesh of training is no part of how a run is used."""
    assert gptjax.load(folder / 'char').config.mesh == MeshConfig()


def test_rows_are_filled_up_for_the_mesh():
    assert [rounded_up(n, MeshConfig()) for n in (1, 3)] == [1, 3]
    assert [rounded_up(n, MeshConfig(data=2, fsdp=2)) for n in (1, 5)] == [4, 8]
    assert rounded_up(1, MeshConfig(fsdp=-1)) == jax.device_count()


def test_too_large_a_mesh_is_refused(folder):
    with pytest.raises(UserError, match=r'mesh.data=1 x fsdp=16 x tensor=1 needs 16 devices'):
        opened(folder / 'char', MeshConfig(fsdp=16))
