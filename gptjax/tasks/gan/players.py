"""Generator and critic: written sentences, their scores, and both losses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array

from gptjax.config import Config
from gptjax.models.block import apply
from gptjax.tasks.gan import from_noise, losses
from gptjax.tasks.gan.model import Critic, Generator, Noise, draw_noise
from gptjax.tasks.gan.spectral import spectrally_normalized
from gptjax.text.words import END
from gptjax.training.losses import Sums, cross_entropy
from gptjax.training.steps import Metrics

Rows = tuple[Array, Array, Noise]  # ids of real and of generated rows, the noise of the latter


@dataclasses.dataclass(frozen=True)
class Players:
    """Both models; their parameters are arguments of all methods."""

    config: Config
    generator: Generator
    critic: Critic

    def init(self, key: Array) -> dict:
        """Initial parameters of both models."""
        model = self.config.model
        generator_key, critic_key = jax.random.split(key)
        ids_BT = jnp.zeros((1, model.block_size), jnp.int32)
        noise = draw_noise(model, self.config.gan, key, ids_BT[:, 0])
        e_BSD = jnp.zeros((1, model.block_size - 1, model.n_embd))
        critic = self.critic.init(
            critic_key, e_BSD, ids_BT, method=lambda model, e, ids: (model(e), model.embed(ids))
        )
        return {'generator': self.generator.init(generator_key, ids_BT, noise), 'critic': critic}

    def author(self, params: dict) -> dict:
        """The parameters that sampling uses: the generator's, or their running mean."""
        return params['average' if self.config.gan.average else 'generator']

    def cross_entropy(self, params: dict, ids_BT: Array, noise: Noise) -> Sums:
        """(sum of nats, number of words) of real sentences, each word given those before it."""
        model = self.generator
        w_BTD = from_noise.style(model, params, noise)
        x_BSD = from_noise.replay(model, params, ids_BT, w_BTD, noise)
        logits_BSV = from_noise.word_logits(model, params, x_BSD, jnp.arange(x_BSD.shape[1]))
        return cross_entropy(logits_BSV, ids_BT[:, 1:], lengths(ids_BT))

    def write(self, params: dict, key: Array, row_B: Array, turns: int) -> tuple[Noise, Array]:
        """(noise, ids), (turns, B, ...) each: sentences for several critic steps, in one scan."""
        model = self.generator

        def draw(turn: Array) -> Noise:
            return draw_noise(model.config, model.gan, jax.random.fold_in(key, turn), row_B)

        # The rows' axis comes first, so that they stay on the devices that have the batch's rows.
        noise = jax.vmap(draw, out_axes=1)(jnp.arange(turns))
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), noise)
        ids_BT = from_noise.write(model, params, from_noise.style(model, params, flat), flat)
        ids = ids_BT.reshape(len(row_B), turns, -1)
        return jax.tree.map(lambda x: x.swapaxes(0, 1), (noise, ids))

    def show(
        self, params: dict, critic_params: dict, ids_BT: Array, noise: Noise, *, learning: bool
    ) -> Array:
        """Generated sentences as the critic's input, embedded (B, S, D).

        The critic's table turns a softmax into a mixture of D numbers. So nothing of the size
        (B, S, V) is kept, and with `train.logits_chunk` nothing of that size ever exists.

        The generator's `params` have a gradient, the words that were fed back have none. `learning`
        says whether that gradient is wanted: words that are shown hard need nothing else.
        """
        model, output = self.generator, self.config.gan.output
        hard = output.endswith('straight_through')
        if hard and not learning:
            return self._embed(critic_params, ids_BT)

        @jax.checkpoint
        def mixture(x_and_t: tuple[Array, Array]) -> Array:
            logits_BV = from_noise.word_logits(model, params, *x_and_t)
            if output.startswith('gumbel'):
                logits_BV += from_noise.gumbel(noise.key_B, x_and_t[1], model.vocab_size)
            return jax.nn.softmax(logits_BV / self.config.gan.temperature) @ table(critic_params)

        w_BTD = from_noise.style(model, params, noise)
        x_SBD = from_noise.replay(model, params, ids_BT, w_BTD, noise).swapaxes(0, 1)
        chunk = min(self.config.train.logits_chunk or len(x_SBD), len(x_SBD))
        places = x_SBD, jnp.arange(len(x_SBD))
        soft_BSD = jax.lax.map(mixture, places, batch_size=chunk).swapaxes(0, 1)
        if not hard:
            return soft_BSD
        # The words forward, the softmax backward (Bengio et al., 2013, 1308.3432).
        return self._embed(critic_params, ids_BT) + soft_BSD - jax.lax.stop_gradient(soft_BSD)

    def critic_loss(
        self, params: dict, writer: dict, rows: Rows, key: Array, row_B: Array, level: Array
    ) -> tuple[Array, Metrics]:
        """Returns (loss, metrics) of the critic on a batch of real and as many generated rows.

        `writer` has the parameters of the generator that wrote the rows; the level of the diffusion
        noise is 0 to 1.
        """
        gan, (ids_BT, fake_BT, noise) = self.config.gan, rows
        mix_key, real_key, fake_key = jax.random.split(key, 3)
        real_BSD = self.embedded(params, ids_BT)
        fake_BSD = self.show(writer, params, fake_BT, noise, learning=False)
        real_BSD = self._diffuse(params, real_BSD, level, real_key, row_B)
        fake_BSD = self._diffuse(params, self._cut(fake_BSD, fake_BT), level, fake_key, row_B)
        # Side by side in a row's place, so that both stay on that row's device.
        both_BSD = jnp.stack([real_BSD, fake_BSD], 1).reshape(-1, *real_BSD.shape[1:])
        real_B, fake_B = self.score(params, both_BSD).reshape(-1, 2).T
        loss = losses.critic_loss(gan.loss, real_B, fake_B)
        penalty = jnp.float32(0)
        if gan.penalty:
            u_B = jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(mix_key, row)))(row_B)
            u_B11 = u_B[:, None, None]
            mixed_BSD = u_B11 * real_BSD + (1 - u_B11) * fake_BSD
            score = functools.partial(self.score, params)
            penalty = losses.gradient_penalty(score, mixed_BSD, table(params))
        seen = {
            'critic_loss': loss,
            'penalty': penalty,
            'score_gap': jnp.mean(real_B) - jnp.mean(fake_B),
            # Diffusion-GAN's sign(D(real) - 0.5), where D is the sigmoid of the score.
            'confidence': jnp.mean(jnp.sign(real_B)),
        }
        return loss + gan.penalty * penalty, seen

    def generator_loss(
        self, params: dict, critic_params: dict, rows: Rows, key: Array, row_B: Array, level: Array
    ) -> Sums:
        """Returns (loss, its adversarial part) of the generator; real rows serve the anchor."""
        gan, (ids_BT, fake_BT, noise) = self.config.gan, rows
        fake_BSD = self.show(params, critic_params, fake_BT, noise, learning=True)
        fake_BSD = self._cut(fake_BSD, fake_BT)
        fake_BSD = self._diffuse(critic_params, fake_BSD, level, key, row_B)
        loss = losses.generator_loss(gan.loss, self.score(critic_params, fake_BSD))
        if not gan.anchor:
            return loss, loss
        nats, words = self.cross_entropy(params, ids_BT, noise)
        return loss + gan.anchor * nats / words, loss

    def embedded(self, params: dict, ids_BT: Array) -> Array:
        """Finished sentences as the critic's input (B, S, D), without diffusion noise."""
        return self._cut(self._embed(params, ids_BT), ids_BT)

    def score(self, params: dict, e_BSD: Array) -> Array:
        """The critic's scores (B,) of embedded sentences."""
        if self.config.gan.spectral_norm:
            params = spectrally_normalized(params)
        return apply(self.critic, params, e_BSD)

    def _cut(self, e_BSD: Array, ids_BT: Array) -> Array:
        """Zeros the positions after <END>, if gan.hide_after_end.

        Not by a mask in the attention: a critic told real from fake by the mask, which no gradient
        penalty sees, and its scores grew without bound.
        """
        seen_BS = jnp.arange(e_BSD.shape[1]) < lengths(ids_BT)[:, None]
        return e_BSD * seen_BS[..., None] if self.config.gan.hide_after_end else e_BSD

    def _embed(self, params: dict, ids_BT: Array) -> Array:
        return apply(self.critic, params, ids_BT[:, 1:], method=lambda model, ids: model.embed(ids))

    def _diffuse(self, params: dict, e_BSD: Array, level: Array, key: Array, row_B: Array) -> Array:
        """Adds noise of a random strength up to the level, to real and generated rows alike."""
        most = self.config.gan.diffusion
        if not most:
            return e_BSD
        size = jax.lax.stop_gradient(jnp.sqrt(jnp.mean(jnp.square(table(params)))))

        def draw(row: Array) -> tuple[Array, Array]:
            strength_key, noise_key = jax.random.split(jax.random.fold_in(key, row))
            return jax.random.uniform(strength_key), jax.random.normal(noise_key, e_BSD.shape[1:])

        strength_B, noise_BSD = jax.vmap(draw)(row_B)
        variance_B11 = (most * level * strength_B)[:, None, None]
        return jnp.sqrt(1 - variance_B11) * e_BSD + jnp.sqrt(variance_B11) * size * noise_BSD


def lengths(ids_BT: Array) -> Array:
    """Number of ids after <START>, up to and with <END> or to the end of each row."""
    is_end_BS = ids_BT[:, 1:] == END
    return jnp.where(is_end_BS.any(1), is_end_BS.argmax(1) + 1, is_end_BS.shape[1])


def table(critic_params: dict) -> Array:
    """The critic's embedding table (V, D)."""
    return critic_params['params']['embed']['embedding']
