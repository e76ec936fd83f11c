"""The GAN as a task: exact resuming, both players' steps, figures, samples, mistakes."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gptjax import tasks
from gptjax.config import (
    Config,
    DataConfig,
    GanConfig,
    GanSamplingConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
)
from gptjax.errors import UserError
from gptjax.generation.requests import whole_texts
from gptjax.parallel.mesh import Layout
from gptjax.tasks.gan import task as gan_module
from gptjax.tasks.gan.judge import Judge
from gptjax.tasks.gan.step import new_balance, new_level, player_config
from gptjax.tasks.gan.task import Gan
from gptjax.text.words import END
from gptjax.training.checkpoint import Checkpoints
from gptjax.training.loop import initial_state
from gptjax.training.steps import run_key
from tests.conftest import ROOT, replace
from tests.runs import train_in

LAYOUT = functools.cache(lambda: Layout(Config().mesh, 1))


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Config:
    cache = str(tmp_path_factory.mktemp('cache'))
    path = str(ROOT / 'data' / 'toy_language.txt')
    return Config(
        name='tiny',
        task='gan',
        model=ModelConfig(
            block_size=9, n_embd=8, n_head=2, n_hidden=8, position='sinusoidal', norm='layer',
            norm_place='branch', activation='gelu', qk_norm=False, residual_init='plain',
        ),
        data=DataConfig(path=path, tokenizer='word', split='documents', cache_dir=cache),
        gan=GanConfig(max_words=7, n_mapping=2, n_critic=2, pretrain_steps=2, adaptive=True,
                      average=0.75, diffusion=0.5, output='gumbel_straight_through'),
        train=TrainConfig(steps=6, batch_size=4, eval_every=3, save_every=3, eval_batches=1,
                          log_every=1, optimizer='adam', beta1=0.0, beta2=0.9, schedule='constant'),
        sample=SampleConfig(temperature=1.0, num_samples=3),
        gan_sampling=GanSamplingConfig(samples=20),
    )  # fmt: skip


@pytest.fixture(scope='module', autouse=True)
def few_rows():
    patch = pytest.MonkeyPatch()
    patch.setattr(gan_module, 'ROWS', 8)
    yield
    patch.undo()


@pytest.fixture(scope='module')
def task(config) -> Gan:
    return tasks.create(config, print)


@pytest.fixture(scope='module')
def step(task):
    return jax.jit(task.train_step)


@pytest.fixture(scope='module')
def state(task):
    return initial_state(task, LAYOUT())


def moved(before, after) -> bool:
    same = jax.tree.map(lambda a, b: bool((a == b).all()), before, after)
    return not all(jax.tree.leaves(same))


@pytest.mark.slow  # The step of both players takes long to compile.
def test_pretraining_moves_the_generator_alone_and_play_moves_both(task, step, state):
    first, metrics = step(state, task.train_batch(0))
    assert moved(state.params['generator'], first.params['generator'])
    assert not moved(state.params['critic'], first.params['critic'])
    assert not moved(first.params['generator'], first.params['average'])
    assert metrics['loss'] == pytest.approx(np.log(14), abs=1.0)
    later = first.replace(step=jnp.int32(2))
    played, metrics = step(later, task.train_batch(2))
    for player in ('generator', 'critic'):
        assert moved(first.params[player], played.params[player])
    expected = jax.tree.map(
        lambda a, b: 0.75 * a + 0.25 * b, first.params['generator'], played.params['generator']
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), expected, played.params['average']
    )
    assert metrics['n_critic'] == 2
    assert metrics['penalty'] > 0
    assert played.opt_state['balance']['generator_loss'] == metrics['loss']


def test_the_mean_of_the_generators_writes_if_there_is_one(task, config, state):
    def written(**params):
        params = state.params | params
        sampled = whole_texts(task.stream(params, [''], config.sample))
        return task.draw(params, 20, LAYOUT()), sampled

    other = jax.tree.map(lambda x: -x, state.params['generator'])
    assert written() == written(generator=other)
    assert all(a != b for a, b in zip(written(), written(average=other), strict=True))
    alone = tasks.create(replace(config, gan={'average': 0.0}), print)
    params = {'generator': 1, 'critic': 2}
    assert alone.adversaries.players.author(params) == 1
    assert alone.adversaries._averaged(params) == params


@pytest.mark.slow  # The step of both players takes long to compile.
def test_the_critic_can_learn_alone_first(config, state):
    waiting = tasks.create(replace(config, gan={'pretrain_steps': 0, 'critic_steps': 1}), print)
    begun = initial_state(waiting, LAYOUT())
    after, _ = jax.jit(waiting.train_step)(begun, waiting.train_batch(0))
    assert not moved(begun.params['generator'], after.params['generator'])
    assert not moved(begun.opt_state['generator'], after.opt_state['generator'])
    assert moved(begun.params['critic'], after.params['critic'])


@pytest.mark.slow  # The step of both players takes long to compile.
def test_resuming_is_exact(task, config, tmp_path):
    """A checkpoint holds both players, both optimizers, the balance and the level."""
    layout = LAYOUT()

    def run(folder, steps, state):
        shorter = dataclasses.replace(task, config=replace(config, train={'steps': steps}))
        checkpoints = Checkpoints(folder / 'checkpoints')
        train_in(folder, shorter, layout, state, checkpoints)
        return checkpoints

    whole = run(tmp_path / 'whole', 6, initial_state(task, layout))
    run(tmp_path / 'parts', 3, initial_state(task, layout))
    parts = Checkpoints(tmp_path / 'parts' / 'checkpoints')
    like = jax.eval_shape(task.init_state, run_key(0))
    like = jax.tree.map(lambda x, s: x.update(sharding=s), like, layout.of(like))
    at, state = parts.resume(like)
    assert at == 3
    run(tmp_path / 'parts', 6, state)
    ends = [Checkpoints(c.folder).restore(like, [6])[1] for c in (whole, parts)]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    rows = [json.loads(r) for r in (tmp_path / 'whole' / 'metrics.jsonl').read_text().splitlines()]
    assert rows[-1].keys() >= {'train_loss', 'critic_loss', 'penalty', 'val_loss', 'bigram_share'}
    for drawn in (rows, []):
        task.plot(drawn, 'a title').savefig(tmp_path / 'loss.png')
    assert (tmp_path / 'loss.png').read_bytes().startswith(b'\x89PNG')


def test_the_critic_sees_nothing_after_the_end(task, state):
    players = task.adversaries.players
    ids_BT = jnp.array([[1, 5, 6, END, 7, 8, 9, 5, 6]])
    changed_BT = ids_BT.at[0, 4:].set(9)
    critic = state.params['critic']

    def seen(players, ids_BT):
        return players._cut(players._embed(critic, ids_BT), ids_BT)

    assert (seen(players, ids_BT) == seen(players, changed_BT)).all()
    open_config = replace(task.config, gan={'hide_after_end': False})
    watched = dataclasses.replace(players, config=open_config)
    assert (seen(watched, ids_BT) != seen(watched, changed_BT)).any()


@pytest.mark.parametrize('output', ['softmax', 'gumbel', 'straight_through'])
def test_what_the_critic_sees_has_a_gradient_for_the_generator(config, task, state, output):
    players = dataclasses.replace(
        task.adversaries.players, config=replace(config, gan={'output': output})
    )
    players = dataclasses.replace(
        players, generator=players.generator.clone(gan=players.config.gan)
    )
    generator, critic = state.params['generator'], state.params['critic']
    row_B = jnp.arange(2)

    @jax.jit
    def run(generator):
        noise, ids = players.write(generator, jax.random.key(0), row_B, 1)
        noise, ids_BT = jax.tree.map(lambda x: x[0], (noise, ids))

        def show(generator):
            return players.show(generator, critic, ids_BT, noise, learning=True)

        gradient = jax.grad(lambda generator: jnp.sum(jnp.sin(show(generator))))(generator)
        return show(generator), players._embed(critic, ids_BT), gradient

    shown_BSD, words_BSD, gradient = run(generator)
    np.testing.assert_allclose(shown_BSD, words_BSD, atol=1e-5) if output.startswith(
        'straight'
    ) else np.testing.assert_array_less(1e-4, np.abs(shown_BSD - words_BSD).max())
    assert np.abs(gradient['params']['map_0']['kernel']).max() > 0


@pytest.mark.parametrize('chunk', [1, 3, 20])
def test_chunks_change_nothing(config, task, state, chunk):
    generator, critic = state.params['generator'], state.params['critic']
    players = task.adversaries.players
    noise, ids = players.write(generator, jax.random.key(0), jnp.arange(2), 1)
    noise, ids_BT = jax.tree.map(lambda x: x[0], (noise, ids))
    soft = replace(config, gan={'output': 'gumbel'})
    chunked = replace(soft, train={'logits_chunk': chunk})
    whole_BSD, parts_BSD = (
        dataclasses.replace(players, config=c).show(generator, critic, ids_BT, noise, learning=True)
        for c in (soft, chunked)
    )
    assert whole_BSD.shape == (2, 8, 8)
    np.testing.assert_allclose(parts_BSD, whole_BSD, atol=1e-6)


def test_the_number_of_critic_steps_follows_the_changes_of_the_losses():
    gan = GanConfig(n_critic=5, adaptive=True)
    before = {'critic_loss': jnp.float32(1), 'generator_loss': jnp.float32(1), 'n': jnp.int32(5)}
    assert new_balance(gan, before, jnp.float32(2), jnp.float32(1.5))['n'] == 5
    assert new_balance(gan, before, jnp.float32(1.1), jnp.float32(1.5))['n'] == 1


def test_the_level_of_noise_follows_the_confidence_every_four_steps():
    gan = GanConfig(diffusion=0.5)
    assert new_level(gan, 4, jnp.float32(0.2), 0.9) == pytest.approx(0.21)
    assert new_level(gan, 4, jnp.float32(0.2), 0.1) == pytest.approx(0.19)
    assert new_level(gan, 5, jnp.float32(0.2), 0.9) == pytest.approx(0.2)
    assert new_level(gan, 8, jnp.float32(0.0), 0.1) == 0


def test_each_player_has_its_own_schedule(config):
    config = replace(config, gan={'critic_learning_rate': 5e-4}, train={'warmup_steps': 3})
    critic = player_config(config, 'critic')
    assert (critic.learning_rate, critic.steps, critic.warmup_steps) == (5e-4, 12, 6)
    assert player_config(config, 'generator') == config.train
    assert player_config(config, 'pretrain').learning_rate == config.gan.pretrain_learning_rate


@pytest.mark.slow
def test_the_logged_learning_rate_is_the_one_that_moves_the_generator(config):
    """With SGD it can be measured; the generator waits for one step of pre-training and two."""
    gan = {'pretrain_steps': 1, 'critic_steps': 2, 'average': 0.0}
    knobs = {'optimizer': 'sgd', 'schedule': 'cosine', 'grad_clip': 0.0, 'warmup_steps': 2}
    config = replace(config, gan=gan, train=knobs | {'learning_rate': 0.1})
    task = tasks.create(config, print)
    step, state = jax.jit(task.train_step), task.init_state(run_key(0))
    rates = []
    for i in range(6):
        before = state.params['generator']
        state, metrics = step(state, task.train_batch(i))
        moved = optax.tree.norm(optax.tree.sub(before, state.params['generator']))
        if i >= 3:
            rates.append(float(metrics['learning_rate']))
            assert float(moved / metrics['grad_norm']) == pytest.approx(rates[-1], rel=1e-3)
    assert rates == pytest.approx([0.1 / 3, 0.2 / 3, 0.1], rel=1e-5)


def test_a_saved_task_is_the_same_and_damage_is_noticed(task, config, state, tmp_path):
    task.save(tmp_path)
    loaded = tasks.load(config, tmp_path)
    assert loaded.fingerprint() == task.fingerprint()
    assert (loaded.sentences.val_NT == task.sentences.val_NT).all()
    assert (tmp_path / 'sentences' / 'train.txt').read_text().count('\n') == 65
    path = tmp_path / 'sentences' / 'val.npy'
    path.write_bytes(path.read_bytes()[:-1] + b'x')
    with pytest.raises(UserError, match=r'damaged .*val.npy is not what was saved'):
        tasks.load(config, tmp_path)


def test_evaluation_compares_with_the_baselines(task, state):
    report = task.examine(state.params, LAYOUT())
    assert report == task.examine(state.params, LAYOUT())
    figures = report.figures
    assert figures['compared'].keys() == {
        'generator', 'words by frequency', 'held-out sentences'
    }  # fmt: skip
    real = figures['compared']['held-out sentences']
    assert real['unigram_distance'] == real['length_distance'] == 0
    assert real['bigram_share'] == 1
    assert '| bigram share |' in report.text
    assert 'configs/gan.py:judge' in report.text


def test_sampling_ends_at_end_and_continues_prompts(task, state, config):
    texts = whole_texts(task.stream(state.params, ['', 'the dog'], config.sample))
    assert len(texts) == 6
    assert not any('<' in text for text in texts)
    assert len(set(texts)) > 3
    again = whole_texts(task.stream(state.params, ['', 'the dog'], config.sample))
    assert again == texts
    short = dataclasses.replace(config.sample, max_new_tokens=1)
    texts = whole_texts(task.stream(state.params, [''], short))
    assert all(len(text.split()) <= 1 for text in texts)


@pytest.mark.parametrize('style', ['fixed', 'interpolate'])
def test_styles(task, config, state, style):
    styled = dataclasses.replace(
        task, config=dataclasses.replace(config, gan_sampling=GanSamplingConfig(style=style))
    )
    texts = whole_texts(styled.stream(state.params, [''], config.sample))
    assert len(texts) == 3


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model': {'dropout': 0.1}}, 'model.dropout=0.1 has no effect with task=gan; leave'),
        ({'model': {'position': 'learned'}}, 'use model.position=sinusoidal'),
        ({'model': {'tied_head': True}}, 'leave model.tied_head at False'),
        ({'train': {'accumulate': 2}}, 'leave train.accumulate at 1'),
        ({'train': {'optimizer': 'muon'}}, 'use train.optimizer=adam'),
        ({'model': {'position': 'none', 'n_embd': 9, 'n_head': 3}}, 'n_embd=9 is odd, and'),
    ],
)
def test_mistakes_name_the_remedy(config, change, message):
    with pytest.raises(UserError, match=message):
        tasks.create(replace(config, **change), print)


@pytest.mark.parametrize(
    ('knobs', 'message'),
    [
        ({'min_words': 9, 'max_words': 8}, 'gan.min_words=9 is above gan.max_words=8; lower'),
        ({'n_noise_layer': 0, 'n_plain_layer': 0}, 'add gan.n_plain_layer=1'),
        ({'n_class_layer': 0}, 'or gan.pooling=average'),
        ({'penalty': -1.0}, 'gan.penalty=-1.0 must be at least 0.0'),
    ],
)
def test_impossible_knobs_name_the_remedy(knobs, message):
    with pytest.raises(UserError, match=message):
        GanConfig(**knobs)


def test_prompts_are_checked(task, state, config):
    with pytest.raises(UserError, match="the word 'zebra' is not in the vocabulary"):
        task.stream(state.params, ['the zebra'], config.sample)
    with pytest.raises(UserError, match='the prompt has 8 words, and a sentence has at most 7'):
        task.stream(state.params, ['the dog ' * 4], config.sample)


@pytest.mark.slow
def test_a_judge_has_to_be_a_word_level_language_model(task, config, state, tmp_path):
    with pytest.raises(UserError, match=r'has no trained model; .*gan.py:judge'):
        Judge(tmp_path, task.config, task.tokenizer)
    task.save(tmp_path)
    path = str(tmp_path / 'sentences' / 'train.txt')
    judging = replace(config, data={'path': path}, train={'steps': 1})
    for kind, message in (('char', 'is a language_model of tokens of kind char'), ('word', '')):
        judging = dataclasses.replace(
            replace(judging, data={'tokenizer': kind, 'split': 'end'}),
            task='language_model',
            gan=GanConfig(),
            gan_sampling=GanSamplingConfig(),
        )
        judge, folder = tasks.create(judging, print), tmp_path / kind
        judge.save(folder)
        checkpoints = Checkpoints(folder / 'checkpoints')
        train_in(folder, judge, LAYOUT(), initial_state(judge, LAYOUT()), checkpoints)
        (folder / 'config.json').write_text(json.dumps(dataclasses.asdict(judging)))
        if message:
            with pytest.raises(UserError, match=message):
                Judge(folder, task.config, task.tokenizer)
    sampling = GanSamplingConfig(samples=8, judge=str(folder))
    judged = dataclasses.replace(task, config=dataclasses.replace(config, gan_sampling=sampling))
    report = judged.examine(state.params, LAYOUT())
    figures = report.figures
    assert 'word GPT' in figures['compared']
    # One step of training: nearly every word is as likely as any other.
    assert 5 < figures['perplexity'] < 40
    assert 'judge' not in report.text
