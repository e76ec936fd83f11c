"""The simplest language model, as a baseline: a table of logits, a row for each token."""

import flax.linen as nn

from gptjax.config import ModelConfig
from gptjax.models.decoder import Cache


class Bigram(nn.Module):
    """Sees the last token alone. It has the interface of `Decoder` and none of its options."""

    config: ModelConfig
    vocab_size: int
    head_name = 'table'
    looked_up = frozenset({'table'})

    def setup(self):
        self.table = nn.Embed(
            self.vocab_size, self.vocab_size, embedding_init=nn.initializers.zeros
        )

    def __call__(self, tokens_BT, pos_BT=None, cache: Cache | None = None, *, train: bool = False):
        """Logits (B, T, V) of the token after each position, and the cache."""
        x_BTV, cache = self.hidden(tokens_BT, pos_BT, cache, train=train)
        return self.logits(x_BTV), cache

    def hidden(self, tokens_BT, pos_BT=None, cache: Cache | None = None, *, train: bool = False):
        """The rows of the table; a cache is only counted on."""
        del pos_BT, train
        if cache is not None:
            cache = cache.replace(slot=cache.slot + tokens_BT.shape[1])
        return self.table(tokens_BT), cache

    def logits(self, x_BTV):
        """The rows are the logits."""
        return x_BTV
