"""Optimizers and learning-rate schedules, from optax."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from gptjax.config import TrainConfig
from gptjax.models import lora
from gptjax.models.linear import KeyPath, matrix_shape

# The first Newton-Schulz steps of Dion (Ahn et al., 2025), as in optax. Three of them learn as much
# as Muon's own five, in three fifths of the time.
ORTHOGONALIZE = ((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037))


class Optimizer(NamedTuple):
    """An update rule, its learning rate at each step, and the decay of the parameters' mean."""

    rule: optax.GradientTransformation
    schedule: optax.Schedule
    average: float = 0.0  # decay of the running mean of the parameters; 0: there is none

    def learning_rate(self, opt_state: optax.OptState) -> jax.Array:
        """The rate of the next update, which counts the updates before it by itself."""
        counts = optax.tree_utils.tree_get_all_with_path(opt_state, 'count')
        return jnp.float32(self.schedule(counts[-1][1]))

    def first_mean(self, params: dict) -> dict:
        """The running mean before the first step, of what learns; empty if there is none."""
        if not self.average:
            return {}
        learns = params.keys() & {lora.COLLECTION} or params.keys()
        return {name: jax.tree.map(jnp.copy, params[name]) for name in sorted(learns)}

    def next_mean(self, mean: dict, params: dict, step: jax.Array) -> dict:
        """The running mean with new parameters, which are those after `step` steps (>= 1).

        Parameters of n steps ago have the weight average**n. The weights sum to 1 from the first
        step on, as in Adam's correction of its moments (Kingma and Ba, 2015).
        """
        if not mean:
            return {}
        new = {name: params[name] for name in mean}
        weight = (1 - self.average) / -jnp.expm1(step * math.log(self.average))
        return jax.tree.map(lambda old, x: old + (weight * (x - old)).astype(x.dtype), mean, new)


def make_schedule(config: TrainConfig) -> optax.Schedule:
    """step -> learning rate: linear warm-up, then cosine decay or a constant, as nanoGPT's."""
    peak, warmup = config.learning_rate, min(config.warmup_steps, config.steps - 1)
    if config.schedule == 'constant':
        after = optax.constant_schedule(peak)
    else:
        decay_steps = max(config.steps - warmup, 1)
        after = optax.cosine_decay_schedule(peak, decay_steps, config.min_learning_rate / peak)
    first = peak / (warmup + 1)  # Not 0: that would waste the first step.
    return optax.join_schedules([optax.linear_schedule(first, peak, warmup), after], [warmup])


def make_optimizer(config: TrainConfig) -> Optimizer:
    """The configured rule with its schedule; the gradient is clipped to its largest norm first."""
    schedule = make_schedule(config)
    adam = {'b1': config.beta1, 'b2': config.beta2, 'mu_dtype': config.moment_dtype}
    match config.optimizer:
        case 'adamw':
            rule = optax.adamw(schedule, **adam, weight_decay=config.weight_decay, mask=is_matrix)
        case 'muon':
            rule = _muon(schedule, adam, config.weight_decay)
        case 'adam':
            rule = optax.adam(schedule, **adam)
        case 'sgd':
            rule = optax.sgd(schedule)
    clip = optax.clip_by_global_norm(config.grad_clip) if config.grad_clip else optax.identity()
    rule = optax.chain(clip, rule)
    if not config.lora_rank:
        return Optimizer(rule, schedule, config.average)
    rule = optax.partition(
        {'learns': rule, 'stays': optax.set_to_zero()},
        _by_path(lambda path: 'learns' if path[0].key == lora.COLLECTION else 'stays'),
    )
    return Optimizer(rule, schedule, config.average)


def _muon(
    schedule: optax.Schedule, adam: dict, weight_decay: float
) -> optax.GradientTransformation:
    """Muon (Jordan et al., 2024) on the blocks' matrices, AdamW on everything else.

    Updates have the size that AdamW's have (Liu et al., 2025, https://arxiv.org/abs/2502.16982), so
    that both take the same learning rate.
    """
    matrices = optax.contrib.muon(
        schedule,
        ORTHOGONALIZE,
        beta=adam['b1'],
        weight_decay=weight_decay,
        mu_dtype=adam['mu_dtype'],
        muon_weight_dimension_numbers=lambda stacks: dict.fromkeys(
            stacks, optax.contrib.MuonDimensionNumbers(1, 2)
        ),
        consistent_rms=0.2,
    )
    return optax.partition(
        {
            'muon': stacked(matrices),
            'adamw': optax.adamw(schedule, **adam, weight_decay=weight_decay, mask=is_matrix),
        },
        _by_path(lambda path: 'muon' if _is_inner(path) else 'adamw'),
    )


def stacked(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Shows `inner` all matrices of a shape as one array, with a new first axis.

    Its state is stacked too, and the layout splits that axis: so each device orthogonalises its
    share of the matrices instead of all of them.
    """

    def stack(tree: Any) -> dict[str, jax.Array]:
        groups: dict[str, list] = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            shape = matrix_shape(path[-2].key, leaf.shape)
            groups.setdefault(_stack_name(shape), []).append(leaf.reshape(shape))
        return {name: jnp.stack(group) for name, group in groups.items()}

    def unstack(stacks: dict[str, jax.Array], like: Any) -> Any:
        parts = {name: iter(stack) for name, stack in stacks.items()}

        def take(path: KeyPath, leaf: jax.Array) -> jax.Array:
            shape = matrix_shape(path[-2].key, leaf.shape)
            return next(parts[_stack_name(shape)]).reshape(leaf.shape)

        return jax.tree_util.tree_map_with_path(take, like)

    def update(updates: Any, state: Any, params: Any = None) -> tuple:
        new, state = inner.update(stack(updates), state, stack(params))
        return unstack(new, updates), state

    return optax.GradientTransformation(lambda params: inner.init(stack(params)), update)


def _stack_name(shape: tuple[int, int]) -> str:
    return f'stack_{shape[0]}x{shape[1]}'


def _by_path(label: Callable[[KeyPath], str | bool]) -> Callable[[Any], Any]:
    """params -> the label of each parameter, which its path decides."""
    return lambda params: jax.tree_util.tree_map_with_path(lambda path, _: label(path), params)


def _is_inner(path: KeyPath) -> bool:
    names = [key.key for key in path]
    return names[-1] == 'kernel' and any(name.startswith('block_') for name in names)


def is_matrix(params: Any) -> Any:
    """True for what weight decay applies to: kernels and embeddings, not biases and norm scales."""
    return _by_path(lambda path: path[-1].key in ('kernel', 'embedding'))(params)
