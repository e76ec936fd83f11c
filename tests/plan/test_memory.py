"""The closed form of memory against the arrays themselves and against XLA's compiler."""

import jax
import pytest

from gptjax.config import MeshConfig
from gptjax.parallel.mesh import Layout
from gptjax.plan import compiled, memory, shapes
from gptjax.training.loop import abstract_state
from tests.conftest import replace

ONE = {'data': 1, 'fsdp': 1, 'tensor': 1}


def task_of(config, vocab_size=64, **sections):
    return shapes.of_vocabulary(replace(config, **sections), vocab_size)


def of_device(task, sizes):
    return memory.of_device(
        task.config,
        shapes.leaves(task),
        sizes,
        vocab_size=task.tokenizer.vocab_size,
        target=memory.target_here(task.config),
    )


@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
@pytest.mark.parametrize('mesh', [(1, 1, 1), (2, 2, 2), (1, 4, 1), (1, 1, 2)])
def test_parameters_and_optimizer_are_exact(tiny, optimizer, mesh):
    task = task_of(tiny, model={'n_layer': 3}, train={'optimizer': optimizer})
    layout = Layout(MeshConfig(*mesh), 8)
    state = abstract_state(task, layout)

    def on_each(tree):
        return sum(
            x.dtype.itemsize * jax.numpy.prod(jax.numpy.array(x.sharding.shard_shape(x.shape)))
            for x in jax.tree.leaves(tree)
        )

    found = of_device(task, layout.mesh.shape)
    assert found.parameters == on_each(state.params)
    assert found.parameters + found.optimizer == on_each(state)


@pytest.fixture(scope='module')
def wide(tiny):
    """Wide enough that activations are most of it."""
    model = {'n_embd': 64, 'n_head': 4, 'block_size': 64, 'qk_norm': False, 'position': 'learned'}
    train = {'batch_size': 16, 'matmul_dtype': 'float32'}  # Not of what this CPU multiplies.
    return task_of(tiny, model=model | {'activation': 'gelu', 'n_layer': 3}, train=train)


VARIANTS = [
    *({}, {'dropout': 0.1}, {'qk_norm': True}, {'activation': 'relu2'}),
    *({'matmul_dtype': 'bfloat16'}, {'remat': 'products'}, {'remat': 'block'}),
]


@pytest.mark.parametrize('knobs', VARIANTS, ids=str)
def test_the_closed_form_is_near_what_the_compiler_allocates(wide, knobs):
    of_model = {name: x for name, x in knobs.items() if hasattr(wide.config.model, name)}
    of_train = {name: x for name, x in knobs.items() if hasattr(wide.config.train, name)}
    task = task_of(wide.config, model=of_model, train=of_train)
    found = compiled.measure(task, Layout(MeshConfig(data=1), 16))['memory']
    assert of_device(task, ONE).total == pytest.approx(compiled.total(found), rel=0.12)


def test_devices_share_what_is_split(tiny):
    task = task_of(tiny)
    whole, half = of_device(task, ONE), of_device(task, {**ONE, 'data': 2})
    assert half.parameters == whole.parameters
    assert half.activations == whole.activations // 2
    assert half.logits == whole.logits // 2
    assert of_device(task, {**ONE, 'fsdp': 2}).parameters < 0.6 * whole.parameters


def test_micro_batches_and_chunks_of_logits_save_memory(tiny):
    tiny = replace(tiny, train={'matmul_dtype': 'float32'})
    whole = of_device(task_of(tiny), ONE)
    parts = of_device(task_of(tiny, train={'accumulate': 2}), ONE)
    assert parts.activations == whole.activations // 2
    assert parts.gradients == 2 * whole.gradients
    assert of_device(task_of(tiny, train={'logits_chunk': 4}), ONE).logits == whole.logits // 4


def test_a_gpu_keeps_no_attention_weights_where_flash_attention_is_possible(tiny):
    wide = replace(tiny, model={'n_embd': 64})
    assert memory.target_of(wide) == memory.Target(itemsize=2, flash=True)
    for config in (
        replace(wide, plan={'chip': 'v5p'}),
        replace(wide, model={'dropout': 0.1}),
        replace(wide, model={'dtype': 'float32'}),
        replace(wide, model={'attention': 'xla'}),
    ):
        assert not memory.target_of(config).flash
    weights = memory.activations(wide, ONE, memory.Target(2, flash=False))
    assert memory.activations(wide, ONE, memory.Target(2, flash=True)) < weights


def test_rematerialisation_keeps_less(tiny):
    config = replace(tiny, model={'n_layer': 12})
    target = memory.target_of(config)
    none, products, block = (
        memory.activations(replace(config, train={'remat': remat}), ONE, target)
        for remat in ('none', 'products', 'block')
    )
    assert block < 0.7 * products < 0.7 * 0.7 * none


def test_the_first_moment_takes_half_of_the_bytes_in_bfloat16(tiny):
    whole, half = (
        of_device(task_of(tiny, train={'moment_dtype': dtype}), ONE)
        for dtype in ('float32', 'bfloat16')
    )
    assert half.optimizer == pytest.approx(0.75 * whole.optimizer, rel=1e-3)


def test_only_the_change_of_lora_has_gradients(tiny):
    lora = {'init_from': 'elsewhere', 'lora_rank': 2}
    assert (
        of_device(task_of(tiny, train=lora), ONE).gradients
        < of_device(task_of(tiny), ONE).gradients / 2
    )


def test_the_cache_of_a_text(tiny):
    # 2 (keys and values) x 2 blocks x 16 wide x 16 tokens x 4 bytes
    assert memory.cache(tiny, memory.target_here(tiny)) == 4096
