"""Loss and gradients of one batch on the accelerator against the CPU, by each implementation.

  JAX_PLATFORMS=cuda,cpu python scripts/gpu_parity.py

Prints one JSON object of relative differences; exits with 1 where one is over its bound.
"""

import dataclasses
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BASE = {'block_size': 128, 'n_layer': 2, 'n_head': 4, 'n_embd': 128, 'residual_init': 'scaled'}
# What differs from float32 with our own attention, and the largest relative difference allowed.
CASES = {
    'float32': ({}, 1e-4),
    'bfloat16': ({'dtype': 'bfloat16', 'attention': 'xla'}, 0.03),
    'bfloat16, cuDNN attention': ({'dtype': 'bfloat16'}, 0.03),
    'padded vocabulary': ({'vocab_multiple': 128}, 1e-4),
}


def main() -> int:
    """Compares all cases; returns the exit status."""
    import jax
    import numpy as np

    from gptjax.config import ModelConfig
    from gptjax.models.decoder import Decoder
    from gptjax.training.losses import chunked_cross_entropy

    jax.config.update('jax_default_matmul_precision', 'highest')
    accelerator, cpu = jax.devices()[0], jax.devices('cpu')[0]
    tokens_BT = np.random.default_rng(0).integers(0, 65, (8, 129))
    lengths_B = np.full(8, 128)

    def gradients(config, device):
        model = Decoder(config, 65)

        def loss(params):
            x_BTD, _ = model.apply(params, tokens_BT[:, :-1], method='hidden')
            head = {model.head_name: params['params'][model.head_name]}

            def logits_fn(head, x_BTD):
                return model.apply({'params': head}, x_BTD, method='logits')

            total, count = chunked_cross_entropy(
                logits_fn, head, x_BTD, tokens_BT[:, 1:], lengths_B, 48
            )
            return total / count

        with jax.default_device(cpu):
            params = model.init(jax.random.key(0), tokens_BT[:, :-1])
        found = jax.jit(jax.value_and_grad(loss))(jax.device_put(params, device))
        return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found)]

    result, ok = {'device': accelerator.device_kind}, True
    for name, (change, bound) in CASES.items():
        plain = {k: v for k, v in change.items() if k == 'vocab_multiple'}
        with jax.default_device(cpu):
            expected = gradients(ModelConfig(**BASE, **plain), cpu)
        config = dataclasses.replace(ModelConfig(**BASE), **change)
        found = gradients(config, accelerator)
        largest = max(
            float(np.linalg.norm(a - b) / np.linalg.norm(b))
            for a, b in zip(found, expected, strict=True)
        )
        result[name] = {'largest_difference': largest, 'bound': bound}
        ok &= largest <= bound
    print(json.dumps(result, indent=1))
    return 0 if ok else 1


if __name__ == '__main__':
    sys.exit(main())
