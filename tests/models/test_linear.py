"""Linear maps: their gradients, weights of a smaller type, and the type of computation."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax import chips
from gptjax.config import Config, ModelConfig, TrainConfig
from gptjax.models import linear
from gptjax.models.decoder import Decoder
from gptjax.models.linear import compute_dtype, unembed
from gptjax.modes.bench import limit

SMALL = ModelConfig(block_size=8, n_layer=2, n_head=2, n_embd=16, tied_head=True, dtype='float32')


def device(platform, capability=''):
    return types.SimpleNamespace(platform=platform, compute_capability=capability)


@pytest.mark.parametrize(
    ('found', 'dtype'),
    [
        (device('cpu'), 'float32'),
        (device('gpu', '7.5'), 'float32'),
        (device('gpu', '9.0'), 'bfloat16'),
        (device('tpu'), 'bfloat16'),
    ],
)
def test_auto_is_bfloat16_exactly_where_the_hardware_multiplies_it(monkeypatch, found, dtype):
    monkeypatch.setattr(jax, 'devices', lambda: [found])
    assert compute_dtype(ModelConfig(dtype='auto')) == dtype
    assert compute_dtype(ModelConfig(dtype='bfloat16')) == 'bfloat16'
    assert compute_dtype(ModelConfig(dtype='float32')) == 'float32'


def test_the_head_and_its_gradients_are_those_of_a_plain_product():
    keys = jax.random.split(jax.random.key(0), 3)
    x_BTD, table_VD, weights_BTV = (
        jax.random.normal(key, shape)
        for key, shape in zip(keys, [(2, 3, 4), (5, 4), (2, 3, 5)], strict=True)
    )

    def gradients(product):
        def loss(x, table):
            return jnp.sum(weights_BTV * product(x, table))

        return jax.value_and_grad(loss, (0, 1))(x_BTD, table_VD)

    ours, plain = gradients(unembed), gradients(lambda x, table: x @ table.T)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, plain)


@pytest.mark.parametrize('inputs', [3, 192, 383, 768, 3 * 257])
def test_one_row_is_multiplied_in_parts_of_the_sum(inputs):
    """As decoding without a batch does, and with the gradients of a plain product."""
    x_BTI = jax.random.normal(jax.random.key(0), (1, 1, inputs))
    w_INH = jax.random.normal(jax.random.key(1), (inputs, 2, 5))

    def loss(product, x, w):
        return jnp.sum(product(x, w) ** 2)

    def ours(x, w):
        return linear.multiply(x, w, (((2,), (0,)), ((), ())))

    plain = functools.partial(jnp.einsum, 'BTI,INH->BTNH')
    assert ours(x_BTI, w_INH).shape == (1, 1, 2, 5)
    np.testing.assert_allclose(ours(x_BTI, w_INH), plain(x_BTI, w_INH), rtol=1e-4, atol=1e-4)
    got, wanted = (
        jax.grad(functools.partial(loss, f), (0, 1))(x_BTI, w_INH) for f in (ours, plain)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), got, wanted)


@pytest.mark.parametrize('flag', ['avx512_bf16', 'amx_bf16', 'avx2'])
def test_training_rounds_products_exactly_where_the_cpu_multiplies_bfloat16(monkeypatch, flag):
    monkeypatch.setattr(chips, 'cpu_flags', lambda: {'sse', flag})
    config = Config(model=SMALL)
    wanted = 'float32' if flag == 'avx2' else 'bfloat16'
    assert linear.matmul_dtype(config) == wanted
    assert compute_dtype(config.model) == 'float32'  # Everything else, and all but training.
    for asked in ('float32', 'bfloat16'):
        config = dataclasses.replace(config, train=TrainConfig(matmul_dtype=asked))
        assert linear.matmul_dtype(config) == asked


@pytest.mark.parametrize('tied_head', [True, False])
def test_gradients_of_rounded_weights_are_products_of_rounded_factors(tied_head):
    """All three products of each matrix, and the gradients differ by rounding alone."""
    model = Decoder(dataclasses.replace(SMALL, tied_head=tied_head, residual_init='plain'), 7)
    tokens_BT = jnp.arange(6).reshape(1, 6)
    params = model.init(jax.random.key(1), tokens_BT)

    def loss(dtype, params):
        logits_BTV, _ = model.apply(linear.reduced(params, dtype), tokens_BT)
        return -jax.nn.log_softmax(logits_BTV)[..., 3].sum()

    rounded_loss = functools.partial(loss, 'bfloat16')
    exact, rounded = (jax.grad(functools.partial(loss, t))(params) for t in ('float32', 'bfloat16'))
    for a, b in zip(*map(jax.tree.leaves, (exact, rounded)), strict=True):
        assert b.dtype == jnp.float32
        assert np.linalg.norm(a - b) < 0.03 * np.linalg.norm(a)
    kinds = [product.dtype for product in limit.products(jax.grad(rounded_loss), params)]
    attention = 3 * 2 * SMALL.n_layer  # its products have no weights
    assert kinds.count('bfloat16') == len(kinds) - attention == 3 * (6 * SMALL.n_layer + 1)


@pytest.mark.parametrize('tied_head', [True, False])
def test_weights_of_a_smaller_type_are_multiplied_as_they_are(tied_head):
    """No product has a float32 matrix any more, and the logits differ by rounding alone."""
    model = Decoder(dataclasses.replace(SMALL, tied_head=tied_head, residual_init='plain'), 7)
    tokens_BT = jnp.arange(6).reshape(1, 6)
    params = model.init(jax.random.key(1), tokens_BT)
    reduced = linear.reduced(params, 'bfloat16')
    logits, _ = model.apply(params, tokens_BT)
    rounded, _ = model.apply(reduced, tokens_BT)
    assert rounded.dtype == jnp.float32
    assert 0 < np.abs(rounded - logits).max() < 0.02 * np.abs(logits).max()
    kinds = [product.dtype for product in limit.products(model.apply, reduced, tokens_BT)]
    attention = 2 * SMALL.n_layer  # its products have no weights
    assert kinds.count('bfloat16') == len(kinds) - attention == 6 * SMALL.n_layer + 1


def test_only_matrices_that_are_multiplied_are_reduced():
    model = Decoder(dataclasses.replace(SMALL, position='learned', norm='layer', bias=True), 7)
    params = model.init(jax.random.key(1), jnp.zeros((1, 2), jnp.int32))
    reduced = linear.reduced(params, 'bfloat16')
    types_by_name = {
        jax.tree_util.keystr(path, simple=True, separator='/'): str(leaf.dtype)
        for path, leaf in jax.tree_util.tree_leaves_with_path(reduced)
    }
    for name, dtype in types_by_name.items():
        multiplied = name.endswith(('kernel', 'embed/embedding'))
        assert dtype == ('bfloat16' if multiplied else 'float32'), name


@pytest.mark.parametrize(
    ('shape', 'axes'), [((1, 1, 960), 1), ((1, 1, 4, 96), 2), ((1, 2, 960), 1)]
)
def test_a_row_in_parts_is_the_same_product(shape, axes):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(*shape[-axes:], 7, 3)).astype(np.float32)
    dims = ((tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes))), ((), ()))
    found, wanted = linear.multiply_row(x, w, dims), linear.multiply(x, w, dims)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
    products = limit.products(lambda x, w: linear.multiply_row(x, w, dims), x, w)
    assert (products[0].flops, len(products)) == (2 * x.size * 21, 1)
