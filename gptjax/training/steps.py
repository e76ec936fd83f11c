"""The train step: a pure function (state, batch) -> (state, metrics), for any loss of that form."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from gptjax.training.losses import Sums
from gptjax.training.optim import Optimizer

# Named, not JAX's default: a checkpoint has to mean the same key wherever it is continued.
KEY_IMPL = 'threefry2x32'

Metrics = dict[str, jax.Array]
Batch = dict[str, Any]  # arrays, of the host or of devices
# (params, batch, key) -> (sum of losses, their number); the key is for dropout.
LossFn = Callable[..., Sums]


class TrainState(flax.struct.PyTreeNode):
    """All that changes in training. A checkpoint holds this and nothing else."""

    step: jax.Array  # int32, optimizer steps done
    key: jax.Array  # the data of the run's random key, never changed
    params: dict
    opt_state: optax.OptState
    mean: dict = flax.struct.field(default_factory=dict)  # of parameters, see `Optimizer`

    @property
    def used(self) -> dict:
        """The parameters to evaluate and to use: their running mean, where there is one."""
        return self.params | self.mean


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def run_key(seed: int) -> jax.Array:
    """The typed random key of a run."""
    return jax.random.key(seed, impl=KEY_IMPL)


def step_key(state: TrainState) -> jax.Array:
    """The typed random key of the state's next step."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.key, impl=KEY_IMPL), state.step)


def init_state(params: dict, optimizer: Optimizer, key: jax.Array) -> TrainState:
    """The state before the first step, of a run with this typed key."""
    opt_state, mean = optimizer.rule.init(params), optimizer.first_mean(params)
    return TrainState(jnp.int32(0), jax.random.key_data(key), params, opt_state, mean)


def make_train_step(
    loss_fn: LossFn, optimizer: Optimizer, accumulate: int, *, draws: bool = True
) -> TrainStep:
    """A train step whose batch is computed in `accumulate` parts, one after the other.

    Parts are weighted by what they count: their number changes memory and rounding, nothing else.
    Copies of the model (mesh.data alone) add up the gradients of their parts by themselves, unless
    the loss `draws` random numbers, which are numbered by the rows of all devices.

    Returns:
      (TrainState, batch) -> (TrainState, metrics), to be jitted by the caller. Metrics are
      float32 scalars: `loss` and `grad_norm` before the update, `param_norm` after it, and the
      `learning_rate` that the schedule gave for it.
    """
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def total(params: dict, batch: Batch, key: jax.Array) -> tuple:
        """Loss sum, count and gradient of the sum, over all parts."""
        if accumulate == 1:
            return value_and_grad(params, batch, key)

        def part(carry: tuple, i_and_batch: tuple) -> tuple:
            i, part_batch = i_and_batch
            new = value_and_grad(params, part_batch, jax.random.fold_in(key, i))
            return jax.tree.map(jnp.add, carry, new), None

        # Part i takes rows i, i + accumulate, ...: each device then has its share of every part.
        parts = jax.tree.map(
            lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch
        )
        zeros = ((jnp.zeros(()), jnp.zeros(())), jax.tree.map(jnp.zeros_like, params))
        return jax.lax.scan(part, zeros, (jnp.arange(accumulate), parts))[0]

    def of_all(params: dict, batch: Batch, key: jax.Array) -> tuple:
        """As `total`, of the rows of all devices."""
        mesh = jax.sharding.get_abstract_mesh()
        copies = not mesh.empty and 1 < mesh.shape['data'] == mesh.size
        # With one part there is nothing to save, and XLA can reduce in the type of the products.
        if draws or accumulate == 1 or not copies:
            return total(params, batch, key)
        rows = P('data')
        return jax.shard_map(
            lambda *given: jax.lax.psum(total(*given), 'data'),
            in_specs=(P(), rows, P()),
            out_specs=P(),
            check_vma=False,
        )(params, batch, key)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        (loss_sum, count), grads = of_all(state.params, batch, step_key(state))
        grads = jax.tree.map(lambda g: g / count, grads)
        updates, opt_state = optimizer.rule.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            'loss': loss_sum / count,
            'grad_norm': optax.tree.norm(grads),
            'param_norm': optax.tree.norm(params),
            'learning_rate': optimizer.schedule(state.step),
        }
        step = state.step + 1
        mean = optimizer.next_mean(state.mean, params, step)
        return TrainState(step, state.key, params, opt_state, mean), metrics

    return train_step


def offloaded(train_step: TrainStep) -> TrainStep:
    """The train step of states whose optimizer's arrays wait in the host's memory.

    They come to the devices for the update; scalars are always on the devices.
    """

    def moved(opt_state: optax.OptState, space: Any) -> optax.OptState:
        return jax.tree.map(lambda x: jax.device_put(x, space) if x.ndim else x, opt_state)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        here = state.replace(opt_state=moved(state.opt_state, jax.memory.Space.Device))
        state, metrics = train_step(here, batch)
        return state.replace(opt_state=moved(state.opt_state, jax.memory.Space.Host)), metrics

    return step


def make_multi_step(train_step: TrainStep) -> Callable[..., tuple[TrainState, Metrics]]:
    """Several optimizer steps in one call, which spares tiny models the way to the host and back.

    Args:
      train_step: (state, batch) -> (state, metrics), as `make_train_step` gives it.

    Returns:
      (TrainState, batches, n) -> (TrainState, metrics), to be jitted by the caller. The batches are
      stacked along a new first axis; the first n are used, and n may be another at every call
      without compiling anew. Metrics are stacked likewise.
    """

    def call(state: TrainState, batches: Batch, n: jax.Array) -> tuple[TrainState, Metrics]:
        def step(i: jax.Array, state_and_metrics: tuple) -> tuple:
            state, metrics = state_and_metrics
            state, new = train_step(state, jax.tree.map(lambda rows: rows[i], batches))
            return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), metrics, new)

        size = len(jax.tree.leaves(batches)[0])
        first = jax.tree.map(lambda rows: rows[0], batches)
        if size == 1:
            state, metrics = train_step(state, first)
            return state, jax.tree.map(lambda one: one[None], metrics)
        _, like = jax.eval_shape(train_step, state, first)
        metrics = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), like)
        return jax.lax.fori_loop(0, n, step, (state, metrics))

    return call
