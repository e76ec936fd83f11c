"""The simplest language model, as a baseline: a table of logits with a row for each token."""

import flax.linen as nn
import jax

from gptjax.models.cache import Cache
from gptjax.models.decoder import Decoder


class Bigram(Decoder):
    """Predicts from the last token alone, with none of the options of `Decoder`.

    Its cache holds nothing; only the slot advances.
    """

    head_name = 'table'
    looked_up = frozenset({'table'})

    def setup(self) -> None:
        self.table = nn.Embed(
            self.vocab_size, self.vocab_size, embedding_init=nn.initializers.zeros
        )

    def hidden(
        self,
        tokens_BT: jax.Array,
        pos_BT: jax.Array | None = None,
        cache: Cache | None = None,
        **_: object,
    ) -> tuple[jax.Array, Cache | None]:
        """The rows of the table (B, T, V), and the cache."""
        return self.table(tokens_BT), None if cache is None else cache.advance(tokens_BT.shape[1])

    def logits(self, x_BTV: jax.Array) -> jax.Array:
        """The rows themselves."""
        return x_BTV
