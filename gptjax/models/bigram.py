"""The simplest language model, as a baseline: a table of logits with a row for each token."""

import flax.linen as nn
import jax

from gptjax.config import ModelConfig
from gptjax.models.cache import Cache


class Bigram(nn.Module):
    """Predicts from the last token alone. It has the methods of `Decoder` and none of its options.

    Its cache holds nothing; only the slot advances.
    """

    config: ModelConfig
    vocab_size: int
    head_name = 'table'
    looked_up = frozenset({'table'})

    def setup(self) -> None:
        self.table = nn.Embed(
            self.vocab_size, self.vocab_size, embedding_init=nn.initializers.zeros
        )

    def __call__(
        self,
        tokens_BT: jax.Array,
        pos_BT: jax.Array | None = None,
        cache: Cache | None = None,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, Cache | None]:
        """Logits (B, T, V) of the token after each position, and the cache."""
        x_BTV, cache = self.hidden(tokens_BT, pos_BT, cache, train=train)
        return self.logits(x_BTV), cache

    def hidden(
        self,
        tokens_BT: jax.Array,
        pos_BT: jax.Array | None = None,
        cache: Cache | None = None,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, Cache | None]:
        """The rows of the table (B, T, V), and the cache."""
        del pos_BT, train
        if cache is not None:
            cache = cache.advance(tokens_BT.shape[1])
        return self.table(tokens_BT), cache

    def logits(self, x_BTV: jax.Array) -> jax.Array:
        """The rows themselves."""
        return x_BTV
