"""Generation equals the plain way of doing it, whatever the chunk, the batch and the padding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import MeshConfig, ModelConfig, SampleConfig
from gptjax.generation import engine as engines
from gptjax.generation.decode import decode_chunk, place
from gptjax.generation.engine import Engine
from gptjax.generation.requests import kept_length
from gptjax.generation.rules import RowRules, Rules, choose
from gptjax.models.decoder import Decoder
from gptjax.parallel.mesh import Layout

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
    """A loop over full forward passes; the context is what `Engine` documents."""
    ids = list(prompt)
    key = jax.random.fold_in(jax.random.key(config.seed), row)
    for i in range(config.max_new_tokens):
        context = ids[len(ids) - kept(len(ids)) :]
        seen = np.isin(np.arange(V), ids)[None]
        noise = jax.random.gumbel(jax.random.fold_in(key, i), (1, V))
        logits = next_logits(context)[None]
        rules = RowRules.of([Rules.from_config(config)])
        ids.append(int(choose(logits, rules, noise, seen)[0]))
    return ids[len(prompt) :]


def kept(n):
    """A context that reaches the block goes on with its last half: simulated token by token."""
    length = 0
    for _ in range(n):
        length += 1
        if length == BLOCK:
            length = BLOCK // 2
    return length


def make_engine(rows=1, chunk=4, **options):
    return Engine(*make(), rows=rows, chunk=chunk, **options)


def generate(prompts, config, **options):
    engine = make_engine(len(prompts) * config.num_samples, config.chunk, **options)
    return engines.generate(engine, prompts, config)


@pytest.mark.parametrize('n', range(1, 40))
def test_kept_length_is_that_of_growing_token_by_token(n):
    assert kept_length(n, BLOCK) == kept(n)


@pytest.mark.parametrize('block_size', [2, 3])
def test_tiny_blocks_keep_at_least_one_token(block_size):
    lengths = {kept_length(n, block_size) for n in range(1, 9)}
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


def submit(engine, prompt, config, sample=0, **options):
    rules, n = Rules.from_config(config), config.max_new_tokens
    return engine.submit(
        prompt, rules, seed=config.seed, sample=sample, max_new_tokens=n, **options
    )


def test_a_row_that_is_cancelled_leaves_the_others_alone():
    expected = generate([SHORT, LONG], PLAIN)
    engine = make_engine(2)
    first, second = (submit(engine, prompt, PLAIN) for prompt in (SHORT, LONG))
    rows = {first: [], second: []}
    while engine.busy:
        for piece in engine.step():
            rows[piece.id] += piece.tokens
        if len(rows[first]) >= 8:
            engine.cancel(first)
    assert rows == {first: expected[0][:8], second: expected[1]}


MIXED = [
    (SHORT, PLAIN),
    (LONG, dataclasses.replace(PLAIN, temperature=0.0, max_new_tokens=9)),
    (LONG[:5], dataclasses.replace(PLAIN, top_k=3, seed=4)),
    (SHORT, dataclasses.replace(PLAIN, top_p=0.7, temperature=0.6, max_new_tokens=40)),
    (LONG[:1], dataclasses.replace(PLAIN, repetition_penalty=1.5, seed=9)),
    (LONG, dataclasses.replace(PLAIN, min_p=0.2, max_new_tokens=17)),
]


@pytest.mark.parametrize('shuffle', range(8))
def test_a_request_draws_what_it_draws_alone(shuffle):
    """Whatever is decoded beside it, whichever row it gets and whenever it is admitted."""
    alone = [generate([prompt], config)[0] for prompt, config in MIXED]
    order = np.random.default_rng(shuffle).permutation(len(MIXED)).tolist()
    engine, numbers, found = make_engine(rows=3, chunk=2 + shuffle % 3), {}, {}
    while order or engine.busy:
        if order:
            i = order.pop()
            numbers[submit(engine, *MIXED[i])] = i
        for piece in engine.step():
            found.setdefault(numbers[piece.id], []).extend(piece.tokens)
    assert [found[i] for i in range(len(MIXED))] == alone


def test_requests_of_any_mix_share_one_program():
    engine = make_engine(rows=4, slots=BLOCK + 4)
    for prompt, config in MIXED:
        submit(engine, prompt, config)
    list(engine.run())
    compiled = decode_chunk._cache_size(), place._cache_size()
    for turn in range(3):
        for prompt, config in MIXED[turn:] + MIXED[:turn]:
            submit(engine, prompt, dataclasses.replace(config, seed=turn), scores=bool(turn))
        list(engine.run())
    assert decode_chunk._cache_size() == compiled[0]
    assert place._cache_size() - compiled[1] <= 2 * 3  # A power of two of rows, and of tokens.


@pytest.mark.parametrize('rows', [1, 4])
def test_the_second_text_of_an_engine_compiles_nothing(rows):
    """The first rows are where the programs leave them, and of the same types."""
    (model, params), layout = make(), Layout(MeshConfig(), rows)
    engine = Engine(model, layout.place(params), rows=rows, chunk=3, layout=layout)
    counts = []
    for seed in range(3):
        for prompt in [SHORT] * rows:
            engine.submit(prompt, seed=seed, max_new_tokens=5)
        list(engine.run())
        counts.append((place._cache_size(), decode_chunk._cache_size()))
    assert counts[0] == counts[1] == counts[2]


def test_a_growing_cache_changes_nothing():
    long = dataclasses.replace(PLAIN, max_new_tokens=60)
    expected = generate([SHORT], long), generate([LONG[:1]], PLAIN)
    engine = make_engine(rows=2)
    first = submit(engine, SHORT[:3], dataclasses.replace(PLAIN, max_new_tokens=2))
    second = submit(engine, LONG[:1], PLAIN)
    found = {first: [], second: []}
    for piece in engine.step():
        found[piece.id] += piece.tokens
    third = submit(engine, SHORT, long)
    found[third] = []
    for piece in engine.run():
        found[piece.id] += piece.tokens
    assert [found[third]] == expected[0]
    assert [found[second]] == expected[1]


def test_scores_are_log_probabilities_of_the_model():
    engine = make_engine()
    submit(engine, SHORT, dataclasses.replace(PLAIN, top_k=2), scores=True)
    ids = list(SHORT)
    for piece in engine.run():
        for token, score in zip(piece.tokens, piece.scores, strict=True):
            context = ids[len(ids) - kept(len(ids)) :]
            expected = jax.nn.log_softmax(next_logits(context))[token]
            assert score == pytest.approx(float(expected), abs=1e-5)
            ids.append(token)


def test_pieces_say_why_a_text_ended(monkeypatch):
    class Letters:
        banned, end = (0,), 12

        def to_bytes(self, ids, after=None):
            return bytes(97 + i for i in ids)

    whole = make_engine(tokenizer=Letters())
    submit(whole, SHORT, PLAIN)
    pieces = list(whole.run())
    text, tokens = ''.join(p.text for p in pieces), sum((p.tokens for p in pieces), ())
    assert 'a' not in text  # Id 0 is never drawn.
    assert pieces[-1].finish == ('stop' if tokens[-1] == 12 else 'length')
    assert all(p.finish is None for p in pieces[:-1])
    for chunk in (1, 3, 16):
        stopped = make_engine(tokenizer=Letters(), chunk=chunk)
        submit(stopped, SHORT, PLAIN, stop=(text[4:6],))
        pieces = list(stopped.run())
        assert ''.join(p.text for p in pieces) == text[: text.index(text[4:6])]
        assert pieces[-1].finish == 'stop'
        drawn = sum((p.tokens for p in pieces), ())
        assert drawn == tokens[: text.index(text[4:6]) + 2]


def test_every_row_gets_its_number_of_tokens():
    assert [len(row) for row in generate([SHORT, LONG], PLAIN)] == [25, 25]
    one = dataclasses.replace(PLAIN, max_new_tokens=1)
    assert [len(row) for row in generate([SHORT], one)] == [1]


@pytest.mark.parametrize(
    ('position', 'ngram'),
    [('learned', 3), ('learned', 1), ('rotary', 3), ('sinusoidal', 1), ('none', 3)],
)
def test_logits_equal_the_full_pass_at_every_position(position, ngram):
    model = Decoder(dataclasses.replace(CONFIG, position=position, ngram=ngram), V)
    _, params = make()
    full = jax.jit(model.apply)
    engine = Engine(model, params, rows=1, chunk=1)
    ids = list(SHORT)
    submit(engine, SHORT, dataclasses.replace(PLAIN, max_new_tokens=30))
    while engine.busy:
        (piece,) = engine.step()
        ids += piece.tokens
        if len(ids) - len(SHORT) == 30 or kept(len(ids)) < kept(len(ids) - 1):
            continue  # The context is rebuilt before the next token.
        context = ids[len(ids) - kept(len(ids)) :]
        padded = np.zeros((1, BLOCK), np.int32)
        padded[0, : len(context)] = context
        expected = full(params, padded)[0][0, len(context) - 1]
        np.testing.assert_allclose(engine._device_rows.logits_BV[0], expected, atol=1e-5)


def test_a_padded_vocabulary_changes_no_text():
    """The padding has no logits of its own in a text, and no noise is drawn for it."""
    _, params = make()
    padded = Decoder(dataclasses.replace(CONFIG, vocab_multiple=8), V)
    wide = jax.tree.map(jnp.asarray, params)
    for name, axis in (('embed', 0), ('head', 1)):
        ((leaf, table),) = params['params'][name].items()
        widths = [(0, 3 * (i == axis)) for i in range(2)]
        wide['params'][name] = {leaf: jnp.pad(table, widths, constant_values=9.0)}
    expected = generate([SHORT], PLAIN)
    assert engines.generate(Engine(padded, wide, rows=1), [SHORT], PLAIN) == expected
