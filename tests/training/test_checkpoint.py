"""Checkpoints: what is saved comes back exactly, and what is damaged is never used."""

import dataclasses
import random

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from gptjax import tasks
from gptjax.config import MeshConfig
from gptjax.errors import UserError
from gptjax.parallel.mesh import Layout
from gptjax.training import checkpoint, steps
from gptjax.training.checkpoint import Checkpoints
from gptjax.training.loop import abstract_state, initial_state
from tests.conftest import replace


@pytest.fixture(scope='module')
def task(tiny):
    return tasks.create(tiny, print)


@pytest.fixture(scope='module')
def layout(task):
    return Layout(MeshConfig(data=1), 1)


@pytest.fixture(scope='module')
def like(task, layout):
    return abstract_state(task, layout)


@pytest.fixture(scope='module')
def state_at(task, layout):
    """step -> a state that tells the steps apart."""
    first = initial_state(task, layout)

    def state_at(step):
        return jax.tree.map(lambda x: x + step, first)

    return state_at


@pytest.fixture
def said():
    return []


@pytest.fixture
def checkpoints(tmp_path, said):
    opened = Checkpoints(tmp_path / 'checkpoints', keep=2, say=said.append)
    yield opened
    opened.close()


def save(checkpoints, state_at, **losses):
    for step, loss in losses.items():
        checkpoints.save(state_at(int(step[1:])), loss)
    checkpoints.close()


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_a_state_comes_back_bitwise(checkpoints, task, layout, state_at, like):
    save(checkpoints, state_at, s3=1.0)
    step, restored = checkpoints.restore(like, checkpoints.saved())
    assert step == 3
    assert_equal(restored, state_at(3))
    assert jax.tree.structure(restored) == jax.tree.structure(like)


def test_a_save_owns_its_copy(checkpoints, task, layout, state_at, like):
    """The next step donates the buffers while they are still being written."""
    state = state_at(1)
    expected = jax.tree.map(np.array, state)
    checkpoints.save(state, 1.0)
    jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)(state)
    checkpoints.close()
    assert_equal(checkpoints.restore(like, [1])[1], expected)


def test_a_restored_state_can_be_donated(checkpoints, task, layout, state_at, like):
    save(checkpoints, state_at, s1=1.0)
    _, state = checkpoints.restore(like, [1])
    step = jax.jit(task.train_step, donate_argnums=0)
    new, _ = step(state, task.train_batch(0))
    assert new.step == 2
    assert state.params['params']['embed']['embedding'].is_deleted()


def test_parameters_are_read_without_the_rest(checkpoints, state_at, like, monkeypatch):
    save(checkpoints, state_at, s1=1.0)
    read, real = [], ocp.checkpoint_utils.construct_restore_args
    monkeypatch.setattr(
        *(ocp.checkpoint_utils, 'construct_restore_args'), lambda x: read.extend(x) or real(x)
    )
    step, params = checkpoints.restore(like, [1], 'params')
    assert step == 1
    assert_equal(params, state_at(1).params)
    assert read and all(name.startswith('params.') for name in read)


def test_the_newest_and_the_best_are_kept(checkpoints, task, layout, state_at):
    save(checkpoints, state_at, s1=3.0, s2=1.0, s3=2.0, s4=2.5, s5=2.7)
    assert checkpoints.saved() == [5, 4, 2]
    assert checkpoints.best_first() == [2, 4, 5]
    assert checkpoints.val_loss(4) == 2.5
    for nonsense in ('[]', '{"val_loss": null}', '{'):
        (checkpoints.folder / '4' / 'metrics' / 'metrics').write_text(nonsense)
        assert checkpoints.val_loss(4) == float('inf')


def test_a_checkpoint_without_a_loss_is_never_the_best(checkpoints, task, layout, state_at):
    save(checkpoints, state_at, s1=3.0, s2=float('inf'))
    assert checkpoints.best_first() == [1, 2]


def test_a_state_may_move_to_another_layout(checkpoints, task, layout, state_at):
    save(checkpoints, state_at, s2=1.0)
    wide = Layout(MeshConfig(data=2, fsdp=2, tensor=2), 8)
    _, state = checkpoints.restore(abstract_state(task, wide), [2])
    assert_equal(state, state_at(2))
    kernel = state.params['params']['block_0']['mlp']['up']['kernel']
    assert kernel.sharding.shard_shape(kernel.shape) == (8, 32)


def files(folder):
    return sorted(p for p in folder.rglob('*') if p.is_file())


def test_no_flipped_bit_is_restored(checkpoints, task, layout, state_at, like, said):
    """Orbax alone restores wrong numbers without a word."""
    save(checkpoints, state_at, s1=1.0, s2=0.5)
    expected = state_at(2)
    choose = random.Random(0)
    noticed = 0
    for path in files(checkpoints.folder / '2'):
        content = path.read_bytes()
        for _ in range(2):
            at = choose.randrange(max(len(content), 1))
            flipped = bytearray(content)
            if flipped:
                flipped[at] ^= 1 << choose.randrange(8)
            path.write_bytes(flipped)
            step, state = checkpoints.restore(like, checkpoints.saved())
            path.write_bytes(content)
            if step == 2:  # Possible for Orbax's notes, which hold nothing of the state.
                assert_equal(state, expected)
                assert path.parent == checkpoints.folder / '2'
            else:
                noticed += 1
                assert_equal(state, state_at(1))
    assert noticed >= 20
    assert len(said) == noticed
    assert 'Warning: checkpoint 2 in' in said[0]
    assert 'is damaged' in said[0]


@pytest.mark.parametrize(
    'damage', ['missing', 'extra', 'cut', 'no manifest', 'bad manifest', 'manifest of another kind']
)
def test_other_damage_is_named_and_the_step_before_is_used(
    checkpoints, task, layout, state_at, like, said, damage
):
    save(checkpoints, state_at, s1=1.0, s2=0.5)
    folder = checkpoints.folder / '2'
    array = max(files(folder / 'default'), key=lambda p: p.stat().st_size)
    match damage:
        case 'missing':
            array.unlink()
        case 'extra':
            (folder / 'default' / 'stray').write_text('x')
        case 'cut':
            array.write_bytes(array.read_bytes()[:-1])
        case 'no manifest':
            (folder / 'manifest.json').unlink()
        case 'bad manifest':
            (folder / 'manifest.json').write_text('{')
        case 'manifest of another kind':
            (folder / 'manifest.json').write_text('[3]')
    step, _ = checkpoints.restore(like, checkpoints.saved())
    assert step == 1
    expected = {
        'missing': 'is missing',
        'extra': 'default/stray is not what was saved',
        'cut': 'SHA-256 differs',
        'no manifest': 'manifest.json is missing',
        'bad manifest': 'manifest.json cannot be read',
        'manifest of another kind': 'manifest.json cannot be read',
    }[damage]
    assert len(said) == 1
    assert expected in said[0]


def test_nothing_sound_left_is_an_error(checkpoints, task, layout, state_at, like):
    save(checkpoints, state_at, s1=1.0)
    (checkpoints.folder / '1' / 'manifest.json').unlink()
    with pytest.raises(UserError, match=r'no sound checkpoint in .*; restore one from a backup'):
        checkpoints.restore(like, checkpoints.saved())


def test_damaged_steps_are_set_aside_and_can_be_saved_again(
    checkpoints, task, layout, state_at, like, said
):
    save(checkpoints, state_at, s1=1.0, s2=0.5)
    for _ in range(2):
        (checkpoints.folder / '2' / 'manifest.json').unlink()
        assert checkpoints.resume(like)[0] == 1
        assert checkpoints.saved() == [1]
        save(checkpoints, state_at, s2=0.5)
        assert checkpoints.saved() == [2, 1]
    aside = checkpoints.folder.parent / 'checkpoints-damaged'
    assert sorted(p.name for p in aside.iterdir()) == ['2', '2-1']
    assert any(line.startswith('Moved it to') for line in said)
    assert_equal(checkpoints.restore(like, [2])[1], state_at(2))


def test_orbaxs_own_notes_may_be_damaged(checkpoints, task, layout, state_at, like):
    save(checkpoints, state_at, s1=1.0, s2=0.5)
    (checkpoints.folder / '2' / '_CHECKPOINT_METADATA').write_text('nonsense')
    save(checkpoints, state_at, s3=0.4)
    assert checkpoints.saved()[0] == 3
    assert checkpoints.restore(like, [2])[0] == 2


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'n_layer': 3}, 'params.params.block_2.* is missing from the checkpoint'),
        ({'n_layer': 1}, 'params.params.block_1.* is only in the checkpoint'),
        ({'n_hidden': 8}, r'up.kernel is float32\[16, 64\] in the checkpoint and float32\[16, 8\]'),
    ],
)
def test_another_model_is_refused_naming_both_sides(
    checkpoints, task, layout, state_at, change, named
):
    save(checkpoints, state_at, s1=1.0)
    other = dataclasses.replace(task, config=replace(task.config, model=change))
    with pytest.raises(UserError, match=f'does not fit the configuration: .*{named}'):
        checkpoints.restore(abstract_state(other, layout), [1])


def test_a_failing_save_says_what_to_do(checkpoints, task, layout, state_at, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, 'save', full)
    with pytest.raises(UserError, match=r'checkpoint 4 could not be saved .*No space left.*make r'):
        checkpoints.save(state_at(4), 1.0)


def test_the_key_survives(checkpoints, task, layout, state_at, like):
    save(checkpoints, state_at, s1=1.0)
    _, state = checkpoints.restore(like, [1])
    assert steps.step_key(state) == steps.step_key(state_at(1))


def test_folders_that_are_no_steps_are_not_taken_for_some(tmp_path):
    for name in ('7', '007', '٣', '12.orbax-checkpoint-tmp', '9' * 20):
        (tmp_path / name).mkdir()
    assert Checkpoints(tmp_path).saved() == [7]
    assert Checkpoints(tmp_path / 'none').saved() == []
