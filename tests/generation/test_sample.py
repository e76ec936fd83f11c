"""Generation equals the plain way of doing it, whatever the chunk, the batch and the padding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import ModelConfig, SampleConfig
from gptjax.generation import sample
from gptjax.generation.rules import Rules, choose
from gptjax.models.decoder import Decoder

V, BLOCK = 13, 12
CONFIG = ModelConfig(
    block_size=BLOCK, n_layer=2, n_head=2, n_embd=16, position='learned', ngram=3, ngram_rows=29
)
SHORT, LONG = np.array([3, 1, 4]), np.arange(30) % V
PLAIN = SampleConfig(max_new_tokens=25, temperature=1.0, chunk=4)


@functools.cache
def make():
    model = Decoder(CONFIG, V)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), params)
    return model, params


@functools.cache
def full_forward():
    model, params = make()
    return jax.jit(lambda tokens_BT: model.apply(params, tokens_BT)[0])


def next_logits(ids):
    """Logits after exactly these tokens, by the full forward pass (padded on the right)."""
    padded = np.zeros((1, BLOCK), np.int32)
    padded[0, : len(ids)] = ids
    return full_forward()(padded)[0, len(ids) - 1]


def plain_generation(prompt, config: SampleConfig, row: int = 0):
    """A loop over full forward passes; the context is what `stream` documents."""
    ids = list(prompt)
    key = jax.random.fold_in(jax.random.key(config.seed), row)
    for i in range(config.max_new_tokens):
        context = ids[len(ids) - kept(len(ids)) :]
        seen = np.isin(np.arange(V), ids)[None]
        noise = jax.random.gumbel(jax.random.fold_in(key, i), (1, V))
        logits = next_logits(context)[None]
        ids.append(int(choose(logits, Rules.from_config(config), noise, seen)[0]))
    return ids[len(prompt) :]


def kept(n):
    """A context that reaches the block goes on with its last half: simulated token by token."""
    length = 0
    for _ in range(n):
        length += 1
        if length == BLOCK:
            length = BLOCK // 2
    return length


def generate(prompts, config):
    model, params = make()
    return [row.tolist() for row in sample.generate(model, params, prompts, config)]


@pytest.mark.parametrize('n', range(1, 40))
def test_kept_length_is_that_of_growing_token_by_token(n):
    assert sample.kept_length(n, BLOCK) == kept(n)


@pytest.mark.parametrize('block_size', [2, 3])
def test_tiny_blocks_keep_at_least_one_token(block_size):
    lengths = {sample.kept_length(n, block_size) for n in range(1, 9)}
    assert 0 < min(lengths) <= max(lengths) < block_size


@pytest.mark.parametrize('prompt', [SHORT, LONG], ids=['short', 'long'])
@pytest.mark.parametrize(
    'rules',
    [{}, {'temperature': 0.0}, {'top_k': 4, 'top_p': 0.9}, {'repetition_penalty': 1.5}],
    ids=str,
)
def test_generation_equals_the_plain_loop_past_the_block(prompt, rules):
    config = dataclasses.replace(PLAIN, **rules)
    assert generate([prompt], config)[0] == plain_generation(prompt, config)


@pytest.mark.parametrize('chunk', [1, 3, 16, 64])
def test_the_chunk_length_changes_nothing(chunk):
    config = dataclasses.replace(PLAIN, chunk=chunk)
    assert generate([SHORT, LONG], config) == generate([SHORT, LONG], PLAIN)


def test_batch_mates_and_padding_change_nothing():
    prompts = [SHORT, LONG, LONG[:1], LONG[:11], LONG[:7]]
    together = generate(prompts, dataclasses.replace(PLAIN, num_samples=2))
    for i, prompt in enumerate(prompts):
        alone = generate([prompt], dataclasses.replace(PLAIN, num_samples=2))
        assert together[2 * i : 2 * i + 2] == alone


def test_samples_differ_and_the_seed_decides():
    config = dataclasses.replace(PLAIN, num_samples=3)
    rows = generate([SHORT], config)
    assert len({tuple(row) for row in rows}) == 3
    assert generate([SHORT], config) == rows
    assert generate([SHORT], dataclasses.replace(config, seed=5)) != rows
    assert generate([SHORT], PLAIN)[0] == rows[0]


def test_a_row_that_is_stopped_leaves_the_others_alone():
    model, params = make()
    expected = generate([SHORT, LONG], PLAIN)
    stopped_B = np.zeros(2, bool)
    rows = [[], []]
    for new in sample.stream(model, params, [SHORT, LONG], PLAIN, stopped_B):
        for row, ids in zip(rows, new, strict=True):
            row.extend(ids.tolist())
        stopped_B[0] = len(rows[0]) >= 8
    assert rows == [expected[0][:8], expected[1]]


def test_every_row_gets_its_number_of_tokens():
    assert [len(row) for row in generate([SHORT, LONG], PLAIN)] == [25, 25]
    one = dataclasses.replace(PLAIN, max_new_tokens=1)
    assert [len(row) for row in generate([SHORT], one)] == [1]


@pytest.mark.parametrize(
    ('position', 'ngram'),
    [('learned', 3), ('learned', 1), ('rotary', 3), ('sinusoidal', 1), ('none', 3)],
)
def test_logits_equal_the_full_pass_at_every_position(position, ngram, monkeypatch):
    model = Decoder(dataclasses.replace(CONFIG, position=position, ngram=ngram), V)
    _, params = make()
    logits = []
    original = sample._decode_chunk

    make_room = jax.jit(sample._make_room, static_argnums=0)

    def recording(model, params, rows, room, slot, *rest):
        ready = rows if room is None else make_room(model, params, rows, room, slot)
        logits.append(np.asarray(ready.logits_BV))
        return original(model, params, rows, room, slot, *rest)

    monkeypatch.setattr(sample, '_decode_chunk', recording)
    config = dataclasses.replace(PLAIN, chunk=1, max_new_tokens=30)
    ids = list(SHORT)
    full = jax.jit(model.apply)
    new = [int(t[0][0]) for t in sample.stream(model, params, [SHORT], config) if len(t[0])]
    for token, found in zip(new, [x[0] for x in logits], strict=True):
        context = ids[len(ids) - kept(len(ids)) :]
        padded = np.zeros((1, BLOCK), np.int32)
        padded[0, : len(context)] = context
        expected = full(params, padded)[0][0, len(context) - 1]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        ids.append(token)


def test_one_compilation_serves_prompts_of_many_lengths():
    generate([LONG[:2]], PLAIN)
    compiled = sample._decode_chunk._cache_size()
    for n in (3, 5, 8):
        generate([LONG[:n]], PLAIN)
    assert sample._decode_chunk._cache_size() == compiled


def test_a_padded_vocabulary_changes_no_text():
    """The padding has no logits of its own in a text, and no noise is drawn for it."""
    model, params = make()
    padded = Decoder(dataclasses.replace(CONFIG, vocab_multiple=8), V)
    wide = jax.tree.map(jnp.asarray, params)
    for name, axis in (('embed', 0), ('head', 1)):
        ((leaf, table),) = params['params'][name].items()
        widths = [(0, 3 * (i == axis)) for i in range(2)]
        wide['params'][name] = {leaf: jnp.pad(table, widths, constant_values=9.0)}
    expected = sample.generate(model, params, [SHORT], PLAIN)
    np.testing.assert_array_equal(sample.generate(padded, wide, [SHORT], PLAIN), expected)
