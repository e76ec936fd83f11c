"""How a GAN's generator is asked for sentences: as in training, or with a style and a prompt."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from gptjax.config import Config
from gptjax.tasks.gan import from_noise
from gptjax.tasks.gan.model import Generator, draw_noise


@dataclasses.dataclass(frozen=True)
class Writer:
    """The jitted ways of writing, compiled at their first use."""

    config: Config
    generator: Generator

    @functools.cached_property
    def as_in_training(self) -> Callable[..., Array]:
        """Jitted: (generator's parameters, key, row_B) -> ids_BT, as in training."""
        model = self.generator

        def write(params: dict, key: Array, row_B: Array) -> Array:
            noise = draw_noise(self.config.model, self.config.gan, key, row_B)
            return from_noise.write(model, params, from_noise.style(model, params, noise), noise)

        return jax.jit(write)

    @functools.cached_property
    def as_asked(self) -> Callable[..., Array]:
        """Jitted: as `as_in_training`, with the style that the configuration asks for."""
        model, kind = self.generator, self.config.gan_sampling.style

        def write(
            params: dict, key: Array, row_B: Array, forced_BT: Array, temperature: Array
        ) -> Array:
            noise = draw_noise(self.config.model, self.config.gan, key, row_B)
            w_BTD = from_noise.style(model, params, noise)
            if kind == 'fixed':
                w_BTD = jnp.broadcast_to(w_BTD[:1], w_BTD.shape)
            if kind == 'interpolate':  # The noise of the positions is then that of the first row.
                share_B11 = jnp.linspace(0, 1, len(row_B))[:, None, None]
                w_BTD = (1 - share_B11) * w_BTD[:1] + share_B11 * w_BTD[-1:]
                noise = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), noise)
            return from_noise.write(model, params, w_BTD, noise, forced_BT, temperature)

        return jax.jit(write)
