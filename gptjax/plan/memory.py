"""Bytes on each device while a language model is trained, in closed form.

Parameters and optimizer state are exact: shapes from tracing, splits from the table in
`gptjax.parallel.mesh`. Activations follow the formulas of `activations`; `gptjax.plan.compiled`
has what XLA allocates instead. Suffixes in the comments are those of `gptjax/models/block.py`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from gptjax.chips import CHIPS
from gptjax.config import Config, ModelConfig
from gptjax.models.attention import why_not_cudnn
from gptjax.models.linear import compute_dtype, matmul_dtype
from gptjax.parallel.mesh import Sizes
from gptjax.plan.shapes import Leaf

FLOAT32 = 4  # bytes
BYTES = {'float32': 4, 'bfloat16': 2}


class Target(NamedTuple):
    """How a kind of device computes."""

    itemsize: int  # bytes of a number in the type of computation
    flash: bool  # whether attention keeps no matrix of weights
    cpu: bool = False
    rounds: bool = False  # whether a CPU multiplies bfloat16 in training


class PerToken(NamedTuple):
    """Numbers that a block keeps for each token until its backward pass, by their width.

    `width` of them are split over `mesh.tensor` and `whole` are not; `hidden` and `weights` are.
    """

    whole: float  # D each
    width: float  # D each
    hidden: float  # F each
    weights: float  # N x T each, one for each head and key


# What is kept where blocks are computed again: their input, and with `products` the outputs of
# query, key, value and `up`. Those of `out` and `down` are only added, so no gradient reads them.
KEPT = {
    'products': PerToken(whole=1, width=3, hidden=1, weights=0),
    'block': PerToken(whole=1, width=0, hidden=0, weights=0),
}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on a device, by what they are for."""

    parameters: int
    gradients: int
    optimizer: int
    copies: int  # of the parameters in the type of computation
    activations: int
    logits: int
    mean: int = 0  # of the parameters, see train.average
    offload: bool = False  # whether the optimizer's state comes from the host for the update alone

    def parts(self) -> dict[str, int]:
        """Each kind of them by its name."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != 'offload'}

    @property
    def total(self) -> int:
        """The most at a time; the update comes when activations, logits and copies are gone."""
        passing = self.copies + self.activations + self.logits
        stays = self.parameters + self.gradients + self.mean
        if self.offload:
            return stays + max(self.optimizer, passing)
        return stays + self.optimizer + passing


def target_of(config: Config) -> Target:
    """How the planned chip computes: bfloat16 unless model.dtype says otherwise."""
    kind = CHIPS[config.plan.chip].kind
    dtype = config.model.dtype.replace('auto', 'bfloat16')
    model = dataclasses.replace(config.model, dtype=dtype)
    fits = not why_not_cudnn(model, True, nvidia=kind.startswith('NVIDIA'))
    return Target(BYTES[dtype], fits and model.attention != 'xla')


def target_here(config: Config) -> Target:
    """How the CPU of this machine computes."""
    rounds = matmul_dtype(config) == 'bfloat16'
    return Target(BYTES[compute_dtype(config.model)], False, cpu=True, rounds=rounds)


def of_device(
    config: Config, leaves: Sequence[Leaf], sizes: Sizes, *, vocab_size: int, target: Target
) -> Memory:
    """The memory of a train step on each device.

    Args:
      config: its batch and `train.accumulate` decide the rows of a micro-batch.
      leaves: of the state, from `shapes.leaves`.
      sizes: of the axes of the mesh, which divide these rows.
      vocab_size: token ids; the table is padded to `model.vocab_multiple`.
      target: how the device computes.
    """
    params = [leaf for leaf in leaves if leaf.is_parameter]
    learns = [leaf for leaf in params if not config.train.lora_rank or '/lora' in leaf.name]
    parameters = sum(leaf.bytes_on(sizes) for leaf in params)
    learnt = sum(leaf.bytes_on(sizes) for leaf in learns)
    # Of several micro-batches the sum of gradients is kept beside those of the present one.
    also = target.itemsize / FLOAT32 if config.train.accumulate > 1 else 0
    also -= 0.2 * target.rounds  # Some are in bfloat16 until the optimizer reads them.
    of_logits = logits(config, sizes, vocab_size=vocab_size, target=target)
    if target.cpu and config.train.remat != 'none':
        # They are gone before a block is computed again.
        of_logits = max(0, of_logits - one_block(config, sizes, target))
    return Memory(
        parameters=parameters,
        gradients=round(learnt * (1 + also)),
        optimizer=sum(leaf.bytes_on(sizes) for leaf in leaves if leaf.is_optimizer),
        mean=sum(leaf.bytes_on(sizes) for leaf in leaves if leaf.name.startswith('mean/')),
        copies=_copies(config, params, sizes, target.itemsize),
        activations=activations(config, sizes, target),
        logits=of_logits,
        offload=config.mesh.offload and not target.cpu,
    )


def _copies(config: Config, params: Sequence[Leaf], sizes: Sizes, itemsize: int) -> int:
    """Matrices in the type of computation; those of blocks gathered, and kept till they are used.

    In the programs that XLA makes, a gathered matrix of the forward pass serves the backward pass.
    A loop over blocks reads them from stacks, as they are stored.
    """
    matrices = [leaf for leaf in params if leaf.name.endswith(('kernel', 'embedding'))]
    if config.train.scan_layers or config.train.remat != 'none':
        blocks = sum(x.bytes_on(sizes) for x in matrices if '/block_0/' in x.name)
        return blocks * itemsize // FLOAT32
    if itemsize == FLOAT32 and sizes['fsdp'] == 1:
        return 0
    whole = {**sizes, 'fsdp': 1}
    total = sum(x.bytes_on(whole if x.name.endswith('kernel') else sizes) for x in matrices)
    return total * itemsize // FLOAT32


def kept(model: ModelConfig, target: Target) -> PerToken:
    """What a block keeps for each token.

    On an accelerator, what the backward pass reads (Korthikanti et al., 2022, section 4.1, without
    dropout): the input of both norms and of both first matrices; queries, keys, values, the output
    of attention; the hidden layer before and after its activation; and without flash attention the
    weights. On a CPU, XLA also has the gradients of all blocks in arrays of their own, since its
    scheduler prefers concurrency to memory. Those counts were fitted to what XLA 0.10.2 allocates
    for 14 shapes, where they are right to 0.3%; and for products of bfloat16 for three.
    """
    changed = model.qk_norm or model.position == 'rotary'  # Queries and keys are kept twice.
    if target.cpu:
        hidden = 3 if model.activation.startswith('gelu') else 2
        drops = model.dropout > 0  # What dropout leaves, and its masks of a byte each.
        width = (18 if changed else 14) + 2 * drops - 3 * target.rounds
        return PerToken(whole=0, width=width, hidden=hidden, weights=3 + 1.25 * drops)
    width = 4 + 2 * changed
    return PerToken(whole=4, width=width, hidden=2, weights=0 if target.flash else 1)


def activations(config: Config, sizes: Sizes, target: Target) -> int:
    """Bytes of activations of a micro-batch on each device, without the logits.

    Args:
      config: of the run.
      sizes: of the mesh.
      target: how the device computes.
    """
    model, remat = config.model, config.train.remat
    if model.kind == 'bigram':
        return 0
    block = one_block(config, sizes, target)
    one_wide = tokens_on(config, sizes) * (FLOAT32 if target.cpu else target.itemsize)
    if remat != 'none':
        stays = round(one_wide * of_block(model, KEPT[remat], sizes['tensor']))
        return model.n_layer * stays + (1 if target.cpu else 2) * block
    if target.cpu:
        return model.n_layer * block + one_wide * 6 * model.n_embd
    # One block more: the gradients of the block that the backward pass is at.
    return (model.n_layer + 1) * block + one_wide * 2 * model.n_embd


def one_block(config: Config, sizes: Sizes, target: Target) -> int:
    """Bytes that the gradient of one block needs on each device; arguments as of `activations`."""
    model, tensor = config.model, sizes['tensor']
    block = of_block(model, kept(model, target), tensor)
    size = FLOAT32 if target.cpu else target.itemsize
    if model.dropout and not target.cpu:  # Masks, of a byte each.
        weights = 0 if target.flash else model.n_head * model.block_size // tensor
        block += (2 * model.n_embd + weights) / size
    return round(tokens_on(config, sizes) * size * block)


def of_block(model: ModelConfig, numbers: PerToken, tensor: int) -> float:
    """Numbers of a block for each token, on a device that has one of `tensor` parts."""
    width, hidden = model.n_embd, model.n_hidden or 4 * model.n_embd
    split = numbers.width * width + numbers.hidden * hidden
    split += numbers.weights * model.n_head * model.block_size
    return numbers.whole * width + split / tensor


def logits(config: Config, sizes: Sizes, *, vocab_size: int, target: Target) -> int:
    """Bytes of the logits that exist at a time and of their gradient.

    Twice in the type of computation; on an accelerator also once in float32, for the loss.
    """
    length = config.train.logits_chunk or config.model.block_size
    share = min(length, config.model.block_size) / config.model.block_size
    columns = padded(config, vocab_size)
    columns = columns if columns % sizes['tensor'] else columns // sizes['tensor']
    size = 2 * target.itemsize + (0 if target.cpu else FLOAT32)
    return round(tokens_on(config, sizes) * share * columns * size)


def padded(config: Config, vocab_size: int) -> int:
    """Rows of the embedding table."""
    multiple = config.model.vocab_multiple
    return math.ceil(vocab_size / multiple) * multiple


def tokens_on(config: Config, sizes: Sizes) -> int:
    """Tokens of a micro-batch on each device."""
    rows = config.train.batch_size // config.train.accumulate
    return rows * config.model.block_size // (sizes['data'] * sizes['fsdp'])


def cache(config: Config, target: Target) -> int:
    """Bytes of keys and values of one generated text of model.block_size tokens."""
    model = config.model
    if model.kind == 'bigram':
        return 0
    return 2 * model.n_layer * model.n_embd * model.block_size * target.itemsize


def least(
    config: Config, leaves: Sequence[Leaf], sizes: Sizes, *, rows: int, vocab_size: int = 0
) -> int:
    """Bytes that a train step cannot do without on each device, whatever XLA makes of it.

    State and gradients as in `of_device`, but gradients in the type of the products and only where
    clipping needs all of them at a time; the input and the hidden layer of each block (with
    train.remat=block of one); the logits once. Without a vocabulary, of another task than a
    language model, state and gradients alone.

    Args:
      config: of the run.
      leaves: of the state.
      sizes: of the mesh.
      rows: of a micro-batch on each device.
      vocab_size: token ids.
    """
    model, train = config.model, config.train
    needed = sum(leaf.bytes_on(sizes) for leaf in leaves)
    if train.grad_clip and not train.lora_rank:
        params = sum(leaf.bytes_on(sizes) for leaf in leaves if leaf.is_parameter)
        needed += params * BYTES[matmul_dtype(config)] // FLOAT32
    if not vocab_size:
        return needed
    hidden = (model.n_hidden or 4 * model.n_embd) // sizes['tensor']
    blocks = model.n_layer * model.n_embd + hidden * (
        1 if train.remat == 'block' else model.n_layer
    )
    blocks *= model.kind != 'bigram'
    length = min(train.logits_chunk or model.block_size, model.block_size)
    numbers = model.block_size * blocks + length * vocab_size // sizes['tensor']
    return needed + rows * numbers * BYTES[compute_dtype(model)]
