"""LoRA (Hu et al., 2021, https://arxiv.org/abs/2106.09685): only a small change is learnt.

A kernel, as a matrix (inputs, outputs), becomes kernel + a b with `a` (inputs, rank) and `b` (rank,
outputs); only these two are trained. They stand beside the parameters, in a collection of their
own, so that no module knows of them: `merge` gives what the module is applied to.
"""

import jax
import jax.numpy as jnp

from gptjax.models.linear import matrix_shape

COLLECTION = 'lora'


def init(params: dict, rank: int, targets: tuple[str, ...], key: jax.Array) -> dict:
    """The change of the kernels of all modules with these names; at first it changes nothing.

    Args:
      params: of the model, nested by module names.
      rank: of the change.
      targets: names of modules, as 'query'.
      key: of the random start of `a`.

    Returns:
      Nested as params, with `a` and `b` in the place of a kernel.
    """

    def visit(tree: dict, path: tuple[str, ...]) -> dict:
        found = {}
        for i, (name, child) in enumerate(sorted(tree.items())):
            if not isinstance(child, dict):
                continue
            if name in targets and 'kernel' in child:
                n_in, n_out = matrix_shape(name, child['kernel'].shape)
                a = jax.random.normal(jax.random.fold_in(keys[path], i), (n_in, rank)) * n_in**-0.5
                found[name] = {'a': a, 'b': jnp.zeros((rank, n_out))}
            else:
                keys[(*path, name)] = jax.random.fold_in(keys[path], i)
                found |= {name: inner} if (inner := visit(child, (*path, name))) else {}
        return found

    keys: dict[tuple[str, ...], jax.Array] = {(): key}
    return visit(params, ())


def merge(variables: dict, alpha: float) -> dict:
    """Variables with the change added to the parameters, and no collection for it any more.

    Args:
      variables: of the model; without a change they come back as they are.
      alpha: the change is multiplied by alpha / rank.
    """
    if COLLECTION not in variables:
        return variables

    def add(params: dict, change: dict) -> dict:
        if 'a' in change:
            kernel, scale = params['kernel'], alpha / change['a'].shape[1]
            added = (change['a'] @ change['b'] * scale).reshape(kernel.shape)
            return params | {'kernel': kernel + added.astype(kernel.dtype)}
        return params | {name: add(params[name], inner) for name, inner in change.items()}

    kept = {name: value for name, value in variables.items() if name != COLLECTION}
    return kept | {'params': add(variables['params'], variables[COLLECTION])}
