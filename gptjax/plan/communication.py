"""What devices send each other in a train step: in closed form, and the time that it takes.

The counts are those of the programs that XLA makes of the step (`gptjax.plan.hlo` reads them):
weights are gathered and gradients reduced once for each micro-batch. On `data` alone, with several
micro-batches and no dropout, gradients are reduced once a step, in float32.
"""

import math
from collections.abc import Iterable, Sequence

from gptjax.chips import Chip
from gptjax.config import Config
from gptjax.parallel.mesh import Sizes
from gptjax.plan.hlo import Collective
from gptjax.plan.memory import FLOAT32, Target, padded, tokens_on
from gptjax.plan.shapes import Leaf

# Of activations in each block over mesh.tensor: after `out` and `down`, and for the gradients of
# what `query`, `key`, `value` and `up` read.
REDUCTIONS = 6


def collectives(
    config: Config, leaves: Sequence[Leaf], sizes: Sizes, *, vocab_size: int, target: Target
) -> list[Collective]:
    """The collectives of an optimizer step; arguments as of `memory.of_device`."""
    model, parts = config.model, config.train.accumulate
    tokens, size = tokens_on(config, sizes), target.itemsize
    learns = [x for x in leaves if x.is_parameter]
    if config.train.lora_rank:
        learns = [x for x in learns if '/lora/' in x.name]
    blocks = [x for x in leaves if '/block_0/' in x.name and x.is_parameter]
    found = []
    if sizes['fsdp'] > 1:
        whole = sum(x.bytes_on({**sizes, 'fsdp': 1}) for x in blocks) * size // FLOAT32
        logits = tokens * padded(config, vocab_size) // sizes['tensor'] * FLOAT32
        found += [
            Collective('all-gather', 'fsdp', parts * model.n_layer, parts * whole),
            Collective('reduce-scatter', 'fsdp', parts * model.n_layer, parts * whole),
            Collective('all-to-all', 'fsdp', parts, parts * logits),
        ]
    if sizes['data'] > 1:
        alone = sizes['fsdp'] == sizes['tensor'] == 1
        once = alone and parts > 1 and not model.dropout
        times = 1 if once else parts
        chunked = _chunked(config) and not once
        chunks = math.ceil(model.block_size / config.train.logits_chunk) if chunked else 0
        head = [x for x in learns if x.name.endswith(('/embed/embedding', '/head/kernel'))]
        # The head's gradient is reduced again for each chunk of logits.
        gradient = sum(x.bytes_on(sizes) for x in learns) + chunks * sum(
            x.bytes_on(sizes) for x in head
        )
        gradient = gradient if once else gradient * size // FLOAT32
        found.append(Collective('all-reduce', 'data', times * (1 + chunks), times * gradient))
    if sizes['tensor'] > 1:
        times = parts * (REDUCTIONS * model.n_layer + 2)
        found.append(
            Collective('all-reduce', 'tensor', times, times * tokens * model.n_embd * size)
        )
    return found


def _chunked(config: Config) -> bool:
    return bool(config.train.logits_chunk) and not config.train.lora_rank


def seconds(found: Iterable[Collective], sizes: Sizes, chip: Chip) -> float:
    """The time of collectives, one after the other, at the full speed of the links."""
    return sum(sent(x, sizes) / speed(x.axes, sizes, chip) for x in found)


def sent(collective: Collective, sizes: Sizes) -> float:
    """Bytes that each device sends in the ring algorithms (Thakur et al., 2005)."""
    n = members(collective.axes, sizes)
    passes = {'all-reduce': 2 * (n - 1) / n, 'collective-permute': 1.0}
    return collective.bytes * passes.get(collective.kind, (n - 1) / n)


def members(axes: str, sizes: Sizes) -> int:
    """Devices that communicate with each other along some axes."""
    return math.prod(sizes[name] for name in axes.split(' x ')) if axes else 1


def speed(axes: str, sizes: Sizes, chip: Chip) -> float:
    """Bytes a second and device along some axes: of fast links, or of the network between nodes.

    Devices that lie on consecutive places share a node. Those of a node that communicate along the
    same axes use all of their network cards together.
    """
    names = list(sizes)
    along = axes.split(' x ') if axes else []
    stride = min(
        (math.prod([sizes[x] for x in names[names.index(a) + 1 :]]) for a in along), default=1
    )
    span = max((math.prod([sizes[x] for x in names[names.index(a) :]]) for a in along), default=1)
    if span <= chip.node:
        return chip.link_bytes_per_s
    together = max(1, min(chip.node // stride, members(axes, sizes)))
    return min(chip.link_bytes_per_s, chip.network_bytes_per_s * together)
