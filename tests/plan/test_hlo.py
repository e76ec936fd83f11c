"""Collectives read from programs: by hand, and of the train step on four simulated devices."""

import pytest

from gptjax.chips import CHIPS
from gptjax.errors import UserError
from gptjax.plan import communication, compiled, hlo, shapes
from gptjax.plan.hlo import Collective
from tests.conftest import replace

SIZES = {'data': 2, 'fsdp': 2, 'tensor': 2}
PROGRAM = """HloModule jit_call

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = f32[8]{0} all-reduce(%x), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  ROOT %t = (s32[], f32[8]) tuple(%i, %a)
}

%cond (p: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%init), condition=%cond, body=%body, TRIPS
  %b = (bf16[4,2]{1,0}, /*index=1*/f32[]) all-gather(%x, %y), replica_groups=[4,2]<=[2,4]T(1,0)
  %c.1 = f32[3]{0} collective-permute(%x), source_target_pairs={{0,0},{1,1},{2,4},{4,2}}
  %d = pred[16]{0} all-to-all(%x), replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}
  ROOT %e = f32[2]{0} reduce-scatter(%x), replica_groups=mesh['a'=4,'b'=2] {'a'}, dimensions={0}
}
""".replace('TRIPS', 'backend_config={"known_trip_count":{"n":"5"}}')


def test_kinds_axes_bytes_and_times_of_a_program():
    assert hlo.read(PROGRAM, SIZES) == [
        Collective('all-gather', 'data', 1, 20),
        Collective('collective-permute', 'data x fsdp', 1, 12),
        Collective('all-to-all', 'data', 1, 16),
        Collective('reduce-scatter', 'data x fsdp', 1, 32),
        Collective('all-reduce', 'tensor', 5, 160),
    ]


def test_every_further_block_adds_the_same():
    first = [Collective('all-reduce', 'data', 3, 100), Collective('all-gather', 'data', 2, 20)]
    second = [Collective('all-reduce', 'data', 4, 150), Collective('all-gather', 'data', 1, 10)]
    assert hlo.extrapolated(first, second, 10) == [Collective('all-reduce', 'data', 13, 600)]


@pytest.fixture(scope='module')
def on_four(tiny):
    """The step of a model of four blocks on 2 x 2 devices, data and tensor; and what was said."""
    config = replace(tiny, model={'n_layer': 4, 'n_embd': 32})
    task, said = shapes.of_vocabulary(config, 64), []
    sizes = {'data': 2, 'fsdp': 1, 'tensor': 2}
    return task, sizes, compiled.compile_step(task, sizes, said.append), said


def test_a_mesh_of_four_has_the_expected_collectives(on_four):
    task, sizes, found, said = on_four
    assert said == ['Compiling the train step for 4 simulated devices, with 2 and 3 of 4 blocks']
    by_key = {(x.kind, x.axes): x for x in found.collectives}
    # The sum of gradients over data: all parameters that a device has, in float32.
    gradients = sum(
        leaf.bytes_on(sizes) for leaf in shapes.leaves(task) if leaf.name.startswith('params/')
    )
    assert by_key['all-reduce', 'data'].bytes >= gradients
    # Of activations over tensor: 6 for each block, and the embeddings.
    rows_bytes = 4 * 16 * 32 * 4
    assert by_key['all-reduce', 'tensor'].bytes >= 4 * 6 * rows_bytes


@pytest.fixture(scope='module')
def in_parts(tiny):
    """As `on_four`, with micro-batches and logits in chunks, on two copies of the model."""
    config = replace(tiny, train={'accumulate': 4, 'logits_chunk': 4}, model={'n_embd': 32})
    task, sizes = shapes.of_vocabulary(config, 64), {'data': 2, 'fsdp': 1, 'tensor': 1}
    return task, sizes, compiled.compile_step(task, sizes, print), []


@pytest.mark.parametrize('case', ['on_four', 'in_parts'])
def test_the_closed_form_sends_about_as_much(case, request):
    from gptjax.plan import memory

    task, sizes, found, _ = request.getfixturevalue(case)
    closed = communication.collectives(
        task.config,
        shapes.leaves(task),
        sizes,
        vocab_size=64,
        target=memory.target_here(task.config),
    )
    assert closed
    for x in closed:
        read = sum(y.bytes for y in found.collectives if (y.kind, y.axes) == (x.kind, x.axes))
        assert x.bytes == pytest.approx(read, rel=0.15), x


def test_a_compiler_that_fails_is_a_line(tiny, monkeypatch):
    monkeypatch.setattr(compiled.sys, 'executable', 'false')
    with pytest.raises(
        UserError, match=r'compiling for 8 devices ended with status 1 .*; use fewer'
    ):
        compiled.compile_step(shapes.of_vocabulary(tiny, 64), SIZES, print)


def test_rings_and_links():
    chip = CHIPS['h100']
    sizes = {'data': 4, 'fsdp': 1, 'tensor': 8}
    reduce = Collective('all-reduce', 'tensor', 1, 8.0)
    assert communication.sent(reduce, sizes) == 14.0
    assert communication.sent(Collective('all-gather', 'data', 1, 8.0), sizes) == 6.0
    assert communication.sent(Collective('collective-permute', 'data', 1, 8.0), sizes) == 8.0
    assert communication.speed('tensor', sizes, chip) == 450e9  # in a node
    assert communication.speed('data', sizes, chip) == 50e9  # one of each node
    assert communication.speed('data', {'data': 32, 'fsdp': 1, 'tensor': 1}, chip) == 400e9
    assert communication.speed('data', sizes, CHIPS['v5p']) == 600e9
