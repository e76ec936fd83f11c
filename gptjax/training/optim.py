"""Optimizers and learning-rate schedules, from optax."""

import jax
import optax

from gptjax.config import TrainConfig


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


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """The configured update rule, after clipping the gradient to its largest global norm."""
    schedule = make_schedule(config)
    adam = {'b1': config.beta1, 'b2': config.beta2}
    match config.optimizer:
        case 'adamw':
            rule = optax.adamw(schedule, **adam, weight_decay=config.weight_decay, mask=is_matrix)
        case 'adam':
            rule = optax.adam(schedule, **adam)
        case 'sgd':
            rule = optax.sgd(schedule)
    clip = optax.clip_by_global_norm(config.grad_clip) if config.grad_clip else optax.identity()
    return optax.chain(clip, rule)


def is_matrix(params):
    """True for what weight decay applies to: kernels and embeddings, not biases and norm scales."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key in ('kernel', 'embedding'), params
    )
