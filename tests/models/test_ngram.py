"""N-grams: found by place as by shifting, hashed alike and evenly."""

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.models import ngram
from gptjax.models.cache import NO_POSITION


def test_tokens_before_each_and_none_before_the_first():
    before_NBT = ngram.shifted(jnp.array([[5, 6, 7, 8]]), 2)
    np.testing.assert_array_equal(before_NBT[:, 0], [[-1, -1, 5, 6], [-1, 5, 6, 7]])


def test_places_say_what_was_before_wherever_it_is_stored():
    tokens_BT = jax.random.randint(jax.random.key(0), (2, 9), 0, 50)
    pos_BT = jnp.tile(jnp.arange(9), (2, 1))
    order_S = jax.random.permutation(jax.random.key(1), 9)
    # Between them there are slots of nobody, whose tokens mean nothing.
    stored_BS = jnp.concatenate([jnp.full((2, 3), 7), tokens_BT[:, order_S]], 1)
    pos_BS = jnp.concatenate([jnp.full((2, 3), NO_POSITION), pos_BT[:, order_S]], 1)
    found_NBT = ngram.found(pos_BT, stored_BS, pos_BS, 3)
    np.testing.assert_array_equal(found_NBT, ngram.shifted(tokens_BT, 3))


def test_padding_has_nothing_before_it():
    pos_BT = jnp.array([[NO_POSITION, NO_POSITION, 0, 1]])
    found_NBT = ngram.found(pos_BT, jnp.array([[3, 4, 5, 6]]), pos_BT, 2)
    np.testing.assert_array_equal(found_NBT[:, 0], [[-1, -1, -1, -1], [-1, -1, -1, 5]])


def test_equal_runs_have_equal_rows_and_others_spread_evenly():
    runs_NBT = jnp.array(np.meshgrid(range(-1, 30), range(30), range(30))).reshape(3, 1, -1)
    rows_T = np.asarray(ngram.rows(runs_NBT, 1000))[0]
    again_NBT = jnp.array([3, 1, 2]).reshape(3, 1, 1)
    same = np.all(runs_NBT[:, 0] == again_NBT[:, 0], axis=0)
    assert rows_T[same].tolist() == ngram.rows(again_NBT, 1000)[0].tolist()
    assert rows_T[same] != ngram.rows(again_NBT[::-1], 1000)[0]  # The order matters.
    counts = np.bincount(rows_T, minlength=1000)
    assert len(counts) == 1000
    expected = len(rows_T) / 1000
    chi_square = np.sum((counts - expected) ** 2 / expected)
    assert 800 < chi_square < 1200  # 999 expected, with a standard deviation of 45.
