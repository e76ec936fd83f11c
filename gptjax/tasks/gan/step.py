"""The train step of two players: pure, (state, batch) -> (state, metrics), jitted by its caller.

A step has `n_critic` steps of the critic in one scan, then one of the generator; before all that
there may be steps of cross-entropy. All that it needs to go on, a critic's number of steps or the
level of the noise on its input too, is in the state's `opt_state`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jax import Array

from gptjax.config import Config, GanConfig, TrainConfig
from gptjax.tasks.gan.model import draw_noise
from gptjax.tasks.gan.players import Players
from gptjax.training.losses import Sums
from gptjax.training.optim import Optimizer, make_optimizer
from gptjax.training.steps import Batch, Metrics, TrainState, make_train_step, step_key

DIFFUSION_EVERY, DIFFUSION_STEP = 4, 0.01  # steps between changes of the level, and their size
SEEN = ('critic_loss', 'penalty', 'score_gap', 'confidence', 'critic_grad_norm')


@dataclasses.dataclass(frozen=True)
class Adversaries:
    """How two players learn from each other."""

    config: Config
    players: Players

    def init_state(self, key: Array) -> TrainState:
        """Fresh parameters of both players, and the state of all that drives them."""
        params = self._averaged(self.players.init(key))
        zero, n = jnp.float32(0), jnp.int32(self.config.gan.n_critic)
        opt_state = {
            'generator': self._optimizer('generator').rule.init(params['generator']),
            'critic': self._optimizer('critic').rule.init(params['critic']),
            # Both losses a step ago, and how many critic steps that makes for the next.
            'balance': {'critic_loss': zero, 'generator_loss': zero, 'n': n},
            'diffusion': zero,
        }
        if self.config.gan.pretrain_steps:
            opt_state['pretrain'] = self._optimizer('pretrain').rule.init(params['generator'])
        return TrainState(jnp.int32(0), jax.random.key_data(key), params, opt_state)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One step of the generator and those of the critic before it, or one of pre-training.

        A batch has `ids` (B, n_critic, T), and `row` (B,), the number of each row, for its noise.
        """
        first = self.config.gan.pretrain_steps
        if not first:
            return self._play(state, batch)
        return jax.lax.cond(state.step < first, self._pretrain, self._play, state, batch)

    def _pretrain(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def loss_fn(params: dict, batch: Batch, key: Array) -> Sums:
            noise = draw_noise(self.config.model, self.config.gan, key, batch['row'])
            return self.players.cross_entropy(params, batch['ids'][:, 0], noise)

        train_step = make_train_step(loss_fn, self._optimizer('pretrain'), 1)
        params, opt_state = state.params['generator'], state.opt_state['pretrain']
        alone, metrics = train_step(TrainState(state.step, state.key, params, opt_state), batch)
        metrics |= dict.fromkeys((*SEEN, 'diffusion', 'n_critic'), jnp.float32(0))
        params = self._averaged(state.params | {'generator': alone.params})
        opt_state = state.opt_state | {'pretrain': alone.opt_state}
        return alone.replace(params=params, opt_state=opt_state), metrics

    def _play(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        gan = self.config.gan
        key, level = step_key(state), state.opt_state['diffusion']
        balance = state.opt_state['balance']
        # The generator stands still while the critic learns, so one scan writes for all turns.
        old, row_B = state.params['generator'], batch['row']
        noise, fakes = self.players.write(old, key, row_B, gan.n_critic + 1)

        def turn(carry: tuple, of_turn: tuple) -> tuple[tuple, None]:
            i, *arrays = of_turn

            def learn(carry: tuple) -> tuple:
                params, opt_state, _ = carry
                turn_key = jax.random.fold_in(key, gan.n_critic + 1 + i)
                grads, seen = jax.grad(self.players.critic_loss, has_aux=True)(
                    params, old, tuple(arrays), turn_key, row_B, level
                )
                seen |= {'critic_grad_norm': optax.tree.norm(grads)}
                params, opt_state = self._update('critic', params, grads, opt_state)
                return params, opt_state, seen

            if gan.adaptive:
                return jax.lax.cond(i < balance['n'], learn, lambda carry: carry, carry), None
            return learn(carry), None

        nothing = dict.fromkeys(SEEN, jnp.float32(0))
        carry = state.params['critic'], state.opt_state['critic'], nothing
        reals = batch['ids'].swapaxes(0, 1)
        for_critic = jax.tree.map(lambda x: x[:-1], (fakes, noise))
        turns = (jnp.arange(gan.n_critic), reals, *for_critic)
        (critic, critic_state, seen), _ = jax.lax.scan(turn, carry, turns)

        rows = (reals[0], *jax.tree.map(lambda x: x[-1], (fakes, noise)))
        last_key = jax.random.fold_in(key, 2 * gan.n_critic + 1)
        value_and_grad = jax.value_and_grad(self.players.generator_loss, has_aux=True)
        (_, loss), grads = value_and_grad(old, critic, rows, last_key, row_B, level)
        before = old, state.opt_state['generator']
        after = self._update('generator', old, grads, before[1])
        waits = state.step < gan.pretrain_steps + gan.critic_steps
        generator, generator_state = jax.tree.map(
            lambda a, b: jnp.where(waits, a, b), before, after
        )
        params = state.params | {'generator': generator, 'critic': critic}
        opt_state = state.opt_state | {
            'generator': generator_state,
            'critic': critic_state,
            'balance': new_balance(gan, balance, seen['critic_loss'], loss),
            'diffusion': new_level(gan, state.step, level, seen['confidence']),
        }
        metrics = seen | {
            'loss': loss,
            'grad_norm': optax.tree.norm(grads),
            'param_norm': optax.tree.norm(generator),
            'learning_rate': self._optimizer('generator').learning_rate(before[1]),
            'diffusion': level,
            'n_critic': jnp.float32(balance['n'] if gan.adaptive else gan.n_critic),
        }
        params = self._averaged(params, gan.average)
        return TrainState(state.step + 1, state.key, params, opt_state), metrics

    def _averaged(self, params: dict, decay: float = 0.0) -> dict:
        """The parameters with the mean of the generator's (Yazici et al., 2018, 1806.04498).

        Players circle around where they should meet, and the mean of a circle is its centre. With a
        decay of 0 the mean begins anew.
        """
        if not self.config.gan.average:
            return params
        new = params['generator']
        if decay:
            new = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, params['average'], new)
        return params | {'average': new}

    def _optimizer(self, player: str) -> Optimizer:
        return make_optimizer(player_config(self.config, player))

    def _update(self, player: str, params: dict, grads: dict, opt_state: optax.OptState) -> tuple:
        updates, opt_state = self._optimizer(player).rule.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state


def new_level(gan: GanConfig, step: Array, level: Array, confidence: Array) -> Array:
    """Diffusion-GAN's rule (Wang et al., 2022, https://arxiv.org/abs/2206.02262)."""
    change = DIFFUSION_STEP * jnp.sign(confidence - gan.diffusion_target)
    return jnp.where(step % DIFFUSION_EVERY == 0, jnp.clip(level + change, 0, 1), level)


def new_balance(gan: GanConfig, before: dict, critic_loss: Array, generator_loss: Array) -> dict:
    """More steps for the player whose loss changed faster (Ouyang et al., 2021, https://arxiv.org/abs/2008.12463)."""

    def change(new: Array, old: Array) -> Array:
        return jnp.abs(new - old) / jnp.maximum(jnp.abs(old), 1e-8)

    critic = change(critic_loss, before['critic_loss'])
    generator = change(generator_loss, before['generator_loss'])
    faster = critic > gan.adaptive_ratio * generator
    n = jnp.where(faster, gan.n_critic, 1).astype(jnp.int32)
    return {'critic_loss': critic_loss, 'generator_loss': generator_loss, 'n': n}


def player_config(config: Config, player: str) -> TrainConfig:
    """The optimisation of the generator, the critic or the pre-training."""
    train, gan = config.train, config.gan
    match player:
        case 'critic':
            rate = gan.critic_learning_rate or train.learning_rate
            return dataclasses.replace(
                train,
                learning_rate=rate,
                min_learning_rate=train.min_learning_rate * rate / train.learning_rate,
                steps=train.steps * gan.n_critic,
                warmup_steps=train.warmup_steps * gan.n_critic,
            )
        case 'pretrain':  # Ordinary Adam: momentum helps where the target stands still.
            return TrainConfig(
                steps=max(gan.pretrain_steps, 2),
                optimizer='adamw',
                learning_rate=gan.pretrain_learning_rate,
                warmup_steps=min(50, gan.pretrain_steps // 10),
            )
    return train
