"""Two players: what the generator writes, what the critic makes of it, and the loss of each."""

import dataclasses

import jax
import jax.numpy as jnp

from gptjax.config import Config
from gptjax.generation import from_noise
from gptjax.models.gan import Critic, Generator, draw_noise
from gptjax.models.spectral import spectrally_normalized
from gptjax.text.words import END
from gptjax.training import losses


@dataclasses.dataclass(frozen=True)
class Players:
    """Generator and critic. Parameters are arguments: `generator`'s and `critic`'s."""

    config: Config
    generator: Generator
    critic: Critic

    def init(self, key) -> dict:
        """Fresh parameters of both."""
        model = self.config.model
        generator_key, critic_key = jax.random.split(key)
        ids_BT = jnp.zeros((1, model.block_size), jnp.int32)
        row_B = jnp.zeros(1, jnp.int32)
        noise = draw_noise(model, self.config.gan, key, row_B)
        e_BSD = jnp.zeros((1, model.block_size - 1, model.n_embd))
        args = (e_BSD, row_B + 1, ids_BT)
        return {
            'generator': self.generator.init(generator_key, ids_BT, noise),
            'critic': self.critic.init(critic_key, *args, method=_score_and_embed),
        }

    def cross_entropy(self, params, ids_BT, noise):
        """(sum of nats, number of words) of real sentences, each word given those before it."""
        w_BTD = from_noise.style(self.generator, params, noise)
        x_BSD = from_noise.replay(self.generator, params, ids_BT, w_BTD, noise)
        logits_BSV = from_noise.word_logits(self.generator, params, x_BSD)
        return losses.cross_entropy(logits_BSV, ids_BT[:, 1:], self.lengths(ids_BT))

    def lengths(self, ids_BT):
        """How many ids after <START> the critic sees: up to <END>, or all."""
        s = ids_BT.shape[1] - 1
        is_end_BS = ids_BT[:, 1:] == END
        after_end_B = jnp.where(is_end_BS.any(1), is_end_BS.argmax(1) + 1, s)
        return after_end_B if self.config.gan.hide_after_end else jnp.full(len(ids_BT), s)

    def fake(self, generator_params, critic_params, noise):
        """Written sentences: (ids_BT, what the critic sees of them, embedded), with gradients.

        The critic's table turns the softmax into a mixture of D numbers for each word, so that of
        (B, S, V) there is what the backward pass computes anew, and no one-hot rows at all.
        """
        model, output = self.generator, self.config.gan.output
        w_BTD = from_noise.style(model, generator_params, noise)
        ids_BT = from_noise.write(
            model, jax.lax.stop_gradient(generator_params), jax.lax.stop_gradient(w_BTD), noise
        )
        x_BSD = from_noise.replay(model, generator_params, ids_BT, w_BTD, noise)

        @jax.checkpoint
        def mixture(generator_params, table_VD, x_BSD):
            logits_BSV = from_noise.word_logits(model, generator_params, x_BSD)
            if output.startswith('gumbel'):
                t_S = jnp.arange(x_BSD.shape[1])
                drawn_SBV = jax.vmap(from_noise.gumbel, (None, 0, None))(
                    noise.key_B, t_S, model.vocab_size
                )
                logits_BSV += drawn_SBV.swapaxes(0, 1)
            softmax_BSV = jax.nn.softmax(logits_BSV / self.config.gan.temperature)
            return softmax_BSV @ table_VD

        soft_BSD = mixture(generator_params, _table(critic_params), x_BSD)
        if output.endswith('straight_through'):
            hard_BSD = self._embed(critic_params, ids_BT)
            # The words forward, the softmax backward (Bengio et al., 2013, 1308.3432).
            soft_BSD = hard_BSD + soft_BSD - jax.lax.stop_gradient(soft_BSD)
        return ids_BT, soft_BSD

    def critic_loss(self, params, generator_params, ids_BT, key, row_B, level):
        """(what the critic lowers, what there is to see of it) of a batch and as many fakes.

        Args:
          params: the critic's.
          level: of the diffusion noise, 0 to 1.
        """
        gan = self.config.gan
        noise_key, mix_key, real_key, fake_key = jax.random.split(key, 4)
        noise = draw_noise(self.config.model, gan, noise_key, row_B)
        fake_BT, fake_BSD = self.fake(generator_params, params, noise)
        real_BSD = self._embed(params, ids_BT)
        real_n_B, fake_n_B = self.lengths(ids_BT), self.lengths(fake_BT)
        real_BSD = self._diffuse(params, real_BSD, level, real_key, row_B)
        fake_BSD = self._diffuse(params, fake_BSD, level, fake_key, row_B)
        real_B = self.score(params, real_BSD, real_n_B)
        fake_B = self.score(params, fake_BSD, fake_n_B)
        loss = losses.critic_loss(gan.loss, real_B, fake_B)
        penalty = jnp.float32(0)
        if gan.penalty:
            u_B = jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(mix_key, row)))(row_B)
            # What is hidden of a sentence is nothing, also in a mixture with a longer one.
            u_B11 = u_B[:, None, None]
            mixed_BSD = u_B11 * _cut(real_BSD, real_n_B) + (1 - u_B11) * _cut(fake_BSD, fake_n_B)
            n_B = jnp.maximum(real_n_B, fake_n_B)
            penalty = losses.gradient_penalty(
                lambda x_BSD: self.score(params, x_BSD, n_B),
                mixed_BSD,
                _table(params) if gan.penalty_space == 'words' else None,
            )
        seen = {
            'critic_loss': loss,
            'penalty': penalty,
            'score_gap': jnp.mean(real_B) - jnp.mean(fake_B),
            # Diffusion-GAN's sign(D(real) - 0.5), where D is the sigmoid of the score.
            'confidence': jnp.mean(jnp.sign(real_B)),
        }
        return loss + gan.penalty * penalty, seen

    def generator_loss(self, params, critic_params, ids_BT, key, row_B, level):
        """(what the generator lowers, its adversarial part); the real rows are for the anchor."""
        gan = self.config.gan
        noise_key, diffusion_key, anchor_key = jax.random.split(key, 3)
        noise = draw_noise(self.config.model, gan, noise_key, row_B)
        fake_BT, fake_BSD = self.fake(params, critic_params, noise)
        fake_BSD = self._diffuse(critic_params, fake_BSD, level, diffusion_key, row_B)
        fake_B = self.score(critic_params, fake_BSD, self.lengths(fake_BT))
        loss = losses.generator_loss(gan.loss, fake_B)
        if not gan.anchor:
            return loss, loss
        noise = draw_noise(self.config.model, gan, anchor_key, row_B)
        nats, words = self.cross_entropy(params, ids_BT, noise)
        return loss + gan.anchor * nats / words, loss

    def score(self, params, e_BSD, length_B):
        """The critic's scores (B,) of embedded sentences."""
        if self.config.gan.spectral_norm:
            params = spectrally_normalized(params)
        return self.critic.apply(params, e_BSD, length_B)

    def _embed(self, params, ids_BT):
        return self.critic.apply(params, ids_BT[:, 1:], method='embed_ids')

    def _diffuse(self, params, e_BSD, level, key, row_B):
        """Noise of a random strength up to the level, for real and fake alike."""
        most = self.config.gan.diffusion
        if not most:
            return e_BSD
        size = jax.lax.stop_gradient(jnp.sqrt(jnp.mean(jnp.square(_table(params)))))

        def draw(row):
            strength_key, noise_key = jax.random.split(jax.random.fold_in(key, row))
            return jax.random.uniform(strength_key), jax.random.normal(noise_key, e_BSD.shape[1:])

        strength_B, noise_BSD = jax.vmap(draw)(row_B)
        variance_B11 = (most * level * strength_B)[:, None, None]
        return jnp.sqrt(1 - variance_B11) * e_BSD + jnp.sqrt(variance_B11) * size * noise_BSD


def _score_and_embed(critic: Critic, e_BSD, length_B, ids_BS):
    return critic(e_BSD, length_B), critic.embed_ids(ids_BS)


def _table(critic_params):
    return critic_params['params']['embed']['embedding']


def _cut(e_BSD, length_B):
    return e_BSD * (jnp.arange(e_BSD.shape[1]) < length_B[:, None])[..., None]
