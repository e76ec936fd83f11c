"""The layout: what is split, what stays whole, and what does not fit."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from gptjax.config import MeshConfig
from gptjax.errors import UserError
from gptjax.parallel.mesh import Layout


def specs(layout, **arrays):
    tree = {name.replace('__', '/'): jnp.zeros(shape) for name, shape in arrays.items()}
    return {name: sharding.spec for name, sharding in layout.of(tree).items()}


def test_matrices_are_split_and_the_rest_is_whole():
    layout = Layout(MeshConfig(data=2, fsdp=2, tensor=2), 8)
    assert specs(
        layout,
        attn__query__kernel=(16, 2, 8),
        attn__query__bias=(2, 8),
        attn__out__kernel=(2, 8, 16),
        mlp__up__kernel=(16, 64),
        mlp__down__kernel=(64, 16),
        norm__scale=(16,),
        step=(),
    ) == {
        'attn/query/kernel': P('fsdp', 'tensor', None),
        'attn/query/bias': P('tensor', None),
        'attn/out/kernel': P('tensor', None, 'fsdp'),
        'mlp/up/kernel': P('fsdp', 'tensor'),
        'mlp/down/kernel': P('tensor', 'fsdp'),
        'norm/scale': P(),
        'step': P(),
    }


def test_a_width_that_the_axis_does_not_divide_stays_whole():
    layout = Layout(MeshConfig(data=1, fsdp=2, tensor=4), 8)
    assert specs(layout, embed__embedding=(65, 16), head__kernel=(16, 65)) == {
        'embed/embedding': P(None, None),
        'head/kernel': P('fsdp', None),
    }


@pytest.mark.parametrize(
    ('batch_size', 'fsdp', 'data'), [(8, 1, 8), (12, 1, 6), (7, 1, 7), (11, 1, 1), (12, 2, 3)]
)
def test_automatic_data_parallelism_divides_the_batch(batch_size, fsdp, data):
    layout = Layout(MeshConfig(data=0, fsdp=fsdp), batch_size)
    assert layout.mesh.shape['data'] == data


def test_a_model_is_copied_only_where_that_pays_or_is_asked_for():
    assert Layout(MeshConfig(), 8, copies=False).mesh.size == 1
    assert Layout(MeshConfig(), 8).mesh.size == 8
    assert Layout(MeshConfig(data=2), 8, copies=False).mesh.size == 2
    assert Layout(MeshConfig(fsdp=4), 8, copies=False).mesh.size == 4


def test_cpu_devices_are_waited_for(monkeypatch):
    assert Layout(MeshConfig(data=2), 8).must_wait and Layout(MeshConfig(data=1), 8).must_wait
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    assert not Layout(MeshConfig(data=2), 8).must_wait


@pytest.mark.parametrize(
    ('mesh', 'batch_size', 'message'),
    [
        (MeshConfig(data=16), 16, 'mesh.data=16 x fsdp=1 x tensor=1 needs 16 devices, .* are 8'),
        (MeshConfig(fsdp=16), 16, 'mesh.data=1 x fsdp=16 x tensor=1 needs 16 devices, .* are 8'),
        (MeshConfig(data=4), 6, '6 rows at a time .* mesh.data=4 x fsdp=1; make them a multiple'),
        (MeshConfig(data=2, fsdp=2), 6, '6 rows at a time .* make them a multiple of 4'),
    ],
)
def test_what_does_not_fit_is_refused(mesh, batch_size, message):
    with pytest.raises(UserError, match=message):
        Layout(mesh, batch_size)


def test_batches_are_split_by_rows():
    layout = Layout(MeshConfig(data=2, fsdp=2), 8)
    batch = layout.put({'inputs': jnp.zeros((8, 4))})
    assert batch['inputs'].sharding.shard_shape((8, 4)) == (2, 4)
    assert jax.block_until_ready(batch)['inputs'].shape == (8, 4)


@pytest.mark.parametrize(
    ('mesh', 'sizes'),
    [
        (MeshConfig(fsdp=-1), (1, 8, 1)),
        (MeshConfig(data=2, fsdp=-1), (2, 4, 1)),
        (MeshConfig(data=-1, tensor=2), (4, 1, 2)),
        (MeshConfig(data=2, fsdp=2, tensor=-1), (2, 2, 2)),
    ],
)
def test_one_size_is_filled_in(mesh, sizes):
    assert tuple(Layout(mesh, 8).mesh.shape.values()) == sizes


def test_what_cannot_be_filled_in_is_refused():
    with pytest.raises(UserError, match=r'mesh.data and mesh.fsdp are -1; give all sizes but one'):
        Layout(MeshConfig(data=-1, fsdp=-1), 8)
    with pytest.raises(UserError, match=r'mesh.tensor=0 gives no shard'):
        MeshConfig(tensor=0)


@pytest.mark.parametrize(
    ('mesh', 'local'), [(MeshConfig(data=4), 4), (MeshConfig(data=4, tensor=2), 3)]
)
def test_each_process_has_rows_of_its_own(monkeypatch, mesh, local):
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(jax, 'local_device_count', lambda: local)
    with pytest.raises(UserError, match='leaves a process without rows of its own'):
        Layout(mesh, 8)
