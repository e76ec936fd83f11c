"""The server's engine: every text as if alone, long prompts in pieces, nothing compiled late."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.config import MeshConfig, ModelConfig
from gptjax.generation.decode import begin, decode_chunk, grown, place
from gptjax.generation.engine import Engine
from gptjax.generation.rules import Rules
from gptjax.models.decoder import Decoder
from gptjax.parallel.mesh import Layout
from gptjax.serve import prefill, slots
from gptjax.serve.slots import SlotEngine
from gptjax.text.characters import CharTokenizer

BLOCK, PIECE = 30, 8
TOKENIZER = CharTokenizer('\nabcdefghijklmnop')
V = TOKENIZER.vocab_size
RULES = (
    Rules(),
    Rules(temperature=0.0),
    Rules(temperature=0.6, top_k=3),
    Rules(top_p=0.7, repetition_penalty=1.4),
    Rules(presence_penalty=1.5, frequency_penalty=0.5),
    Rules(logit_bias=((2, 3.0), (5, -100.0))),
    Rules(min_p=0.2),
)
PROGRAMS = (begin, place, grown, decode_chunk, prefill.extend, prefill.adopt)
# (prompt length, rules, seed, sample, tokens, stop, scores)
REQUESTS = [
    (n, RULES[i % 7], 7 * i, i % 3, 1 + 5 * i % 45, ('ab',) if i % 4 == 1 else (), i % 5 == 0)
    for i, n in enumerate([1, 3, 8, 9, 16, 17, 29, 30, 31, 64, 100, 5, 2, 25, 12, 1])
]  # fmt: skip


@functools.cache
def make():
    config = ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=BLOCK, ngram=2, ngram_rows=31)
    model = Decoder(config, V)
    params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(params))))
    return model, jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), params)


def prompt_of(i: int) -> list[int]:
    return np.random.default_rng(i).integers(1, V, REQUESTS[i][0]).tolist()


def submit(engine: Engine, i: int) -> int:
    _, rules, seed, sample, tokens, stop, scores = REQUESTS[i]
    how = {'seed': seed, 'sample': sample, 'stop': stop, 'scores': scores}
    return engine.submit(prompt_of(i), rules, max_new_tokens=tokens, **how)


def collect(pieces) -> dict[int, tuple]:
    found: dict[int, tuple] = {}
    for piece in pieces:
        tokens, text, _ = found.get(piece.id, ((), '', None))
        found[piece.id] = (tokens + piece.tokens, text + piece.text, piece.finish)
    return found


@functools.cache
def alone(i: int) -> tuple:
    model, params = make()
    engine = Engine(model, params, rows=1, chunk=5, tokenizer=TOKENIZER)
    return collect(engine.run() if submit(engine, i) == 0 else ())[0]


MESHES = {'one device': None, 'rows': MeshConfig(), 'heads': MeshConfig(data=1, tensor=2)}


@pytest.fixture(scope='module', params=MESHES.values(), ids=MESHES)
def engine(request):
    model, params = make()
    layout = Layout(request.param, 4, copies=True) if request.param else None
    patch = pytest.MonkeyPatch()
    patch.setattr(slots, 'PIECE', PIECE)
    variables = layout.place(params) if layout else params
    how = {'rows': 4, 'chunk': 3, 'together': 2.5 * PIECE, 'tokenizer': TOKENIZER}
    engine = SlotEngine(model, variables, **how, layout=layout)
    engine.warm_up()
    yield engine
    patch.undo()


def shuffled(engine, seed: int) -> dict[int, tuple]:
    """All requests in a random order, some at a time, with others that leave."""
    order = np.random.default_rng(seed)
    left, numbers, pieces, leaving = list(order.permutation(len(REQUESTS))), {}, [], []
    while left or engine.busy:
        for _ in range(order.integers(0, 4)):
            if left:
                i = int(left.pop())
                numbers[submit(engine, i)] = i
        if order.random() < 0.3:
            leaving.append(submit(engine, int(order.integers(len(REQUESTS)))))
        pieces += engine.step()
        if leaving and order.random() < 0.5:
            engine.cancel(leaving.pop())
        if not left:
            for number in leaving:
                engine.cancel(number)
    assert (engine.active, engine.waiting) == (0, 0)
    found = collect(pieces)
    return {i: found[number] for number, i in numbers.items()}


@pytest.mark.parametrize('seed', range(4))
def test_every_text_is_as_if_alone_and_nothing_compiles(engine, seed):
    compiled = [program._cache_size() for program in PROGRAMS]
    found = shuffled(engine, seed)
    assert [program._cache_size() for program in PROGRAMS] == compiled
    assert found == {i: alone(i) for i in range(len(REQUESTS))}


@pytest.mark.slow
def test_a_hundred_shuffles(engine):
    for seed in range(4, 104):
        assert shuffled(engine, seed) == {i: alone(i) for i in range(len(REQUESTS))}


def test_a_long_context_does_not_stall_the_others(engine):
    first = engine.submit([1], max_new_tokens=BLOCK - 2)
    engine.step()
    long = engine.submit(list(range(1, 17)) + [1] * 12, max_new_tokens=2)  # Four pieces.
    seen = [[piece.id for piece in engine.step() if piece.tokens] for _ in range(4)]
    assert seen == [[first]] * 3 + [[first, long]]
    engine.cancel(first)
    list(engine.run())


def test_the_likeliest_tokens_come_with_scores(engine):
    number = engine.submit([1, 2, 3], max_new_tokens=6, scores=True, seed=3)
    for piece in engine.run():
        assert piece.id == number
        for token, score, likeliest in zip(
            piece.tokens, piece.scores, piece.likeliest, strict=True
        ):
            assert len(likeliest) == slots.LIKELIEST
            values = [value for _, value in likeliest]
            assert values == sorted(values, reverse=True)
            assert dict(likeliest).get(token, score) == score  # The same float.
