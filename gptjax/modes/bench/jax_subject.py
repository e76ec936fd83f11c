"""Our side of a benchmark, as a process of its own: see `gptjax.modes.bench.worker`."""

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from gptjax import devices
from gptjax.config import SampleConfig
from gptjax.modes.bench import machine, worker

if TYPE_CHECKING:
    import jax


class JaxSubject:
    """The task, the layout and the jitted step exactly as the training loop uses them."""

    def __init__(self, job: worker.Job) -> None:
        """Compiles nothing yet."""
        import jax

        from gptjax import tasks
        from gptjax.console import say
        from gptjax.modes.bench import limit
        from gptjax.tasks.language_model.task import LanguageModel
        from gptjax.training.checkpoint import flat_leaves
        from gptjax.training.loop import StepRunner, initial_state, layout_of

        self._limit = limit
        if job.exact:
            jax.config.update('jax_default_matmul_precision', 'highest')
        self._jax = jax
        self._prompt = job.prompt()
        task = tasks.create(job.config, say)
        assert isinstance(task, LanguageModel)
        self.task = task
        self.layout = layout_of(task)
        state = initial_state(self.task, self.layout)
        weights = job.weights()
        names = [name.removeprefix('params.') for name in flat_leaves(state.params)]
        leaves = [
            jax.device_put(weights[name], leaf.sharding)
            for name, leaf in zip(names, jax.tree.leaves(state.params), strict=True)
        ]
        params = jax.tree.unflatten(jax.tree.structure(state.params), leaves)
        self.state = state.replace(params=params)
        self._names = names
        self._runner = StepRunner(self.task, self.layout, self.state)

    def gradients(self) -> worker.Arrays:
        """Loss and every gradient of the first batch; nothing is updated."""

        def mean(params: dict, batch: dict) -> 'jax.Array':
            total, count = self.task.loss(params, batch)
            return total / count

        batch = self.layout.put(self.task.train_batch(0))
        loss, grads = self._jax.jit(self._jax.value_and_grad(mean))(self.state.params, batch)
        return {'loss': np.asarray(loss, np.float32), **self._arrays(grads)}

    def parameters(self) -> worker.Arrays:
        """All parameters as they are now."""
        return self._arrays(self.state.params)

    def train(self, steps: int) -> float:
        """Seconds that some optimizer steps take."""
        done = int(self.state.step)
        last = done + steps
        began = time.perf_counter()
        while done < last:
            self.state, metrics, n = self._runner.run(self.state, done, last - done)
            done += n
        self._jax.block_until_ready(metrics)
        return time.perf_counter() - began

    def generate(self, batch_size: int, tokens: int, texts: int, greedy: bool) -> float:
        """Seconds to continue the prompt, `texts` times one after the other."""
        from gptjax.generation.engine import generate

        config = self._sampling(batch_size, tokens, greedy)
        engine = self.task.engine(self.state.params, config, rows=batch_size)
        self._jax.block_until_ready(self.state.params)
        began = time.perf_counter()
        for _ in range(texts):
            generate(engine, [self._prompt], config)
        return time.perf_counter() - began

    def continuation(self, tokens: int) -> list[int]:
        """The likeliest tokens after the prompt."""
        from gptjax.generation.engine import generate

        config = self._sampling(1, tokens, True)
        engine = self.task.engine(self.state.params, config, rows=1)
        return generate(engine, [self._prompt], config)[0]

    def _sampling(self, batch_size: int, tokens: int, greedy: bool) -> SampleConfig:
        use = self.task.config.sample
        return SampleConfig(
            max_new_tokens=tokens,
            temperature=0.0 if greedy else 1.0,
            num_samples=batch_size,
            chunk=use.chunk,
            weights=use.weights,
        )

    def limit(self) -> dict[str, float]:
        """What the machine allows at most, measured now.

        Returns:
          `step_s`: seconds of the matrix products of a train step alone; `flops_per_s` of these;
          `weights` that each decoded token is multiplied with, the `weight_bytes` that they take,
          and `bytes_per_s` at which all cores read as many.
        """
        batch = self.task.train_batch(0)
        accumulate = self.task.config.train.accumulate
        step_s, flops = self._limit.of_step(
            self.task.train_step, self.state, batch, accumulate=accumulate
        )
        weights = self._limit.weights(self.state.params['params'])
        weight_bytes = weights * self._jax.numpy.dtype(self.task.config.model.dtype).itemsize
        return {
            'step_s': step_s,
            'flops_per_s': flops / step_s,
            'weights': weights,
            'weight_bytes': weight_bytes,
            'bytes_per_s': self._limit.bandwidth(weight_bytes),
        }

    def about(self) -> dict:
        """Versions, devices and memory."""
        device = self._jax.devices()[0]
        about = {'version': self._jax.__version__, 'device': device.device_kind}
        about |= {'devices': self.layout.mesh.size, 'cores': len(os.sched_getaffinity(0))}
        stats = device.memory_stats() or {}
        if 'peak_bytes_in_use' in stats:
            about['peak_bytes'] = stats['peak_bytes_in_use']
        return about | {'resident_bytes': machine.resident_bytes()}

    def _arrays(self, tree: Any) -> worker.Arrays:
        leaves = map(np.asarray, self._jax.tree.leaves(tree))
        return dict(zip(self._names, leaves, strict=True))


if __name__ == '__main__':
    devices.tune_cpu()
    worker.serve(JaxSubject)
