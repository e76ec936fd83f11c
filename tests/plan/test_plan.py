"""The plan as a whole: the search, the roofline, the command and its check."""

import json

import pytest

from gptjax.chips import CHIPS, PEAK_FLOPS
from gptjax.errors import UserError
from gptjax.modes import plan as mode
from gptjax.modes.request import Request
from gptjax.plan import measure, plan, report, roofline, search, shapes
from gptjax.plan.roofline import Step
from tests.conftest import replace


def quiet(line):
    del line


@pytest.fixture(scope='module')
def planned(tiny, tmp_path_factory):
    """A request of a plan for four devices, and what it printed on standard output."""
    import contextlib
    import io

    config = replace(tiny, plan={'devices': 4}, mesh={'fsdp': 2})
    request = Request(config=config, workdir=tmp_path_factory.mktemp('plan'), as_json=True)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert mode.run(request) == 0
    return request, out.getvalue()


def test_json_is_one_object_and_equals_the_file(planned):
    request, out = planned
    made = json.loads(out)
    assert made == json.loads((request.workdir / 'plan.json').read_text())
    assert (request.workdir / 'plan.png').read_bytes().startswith(b'\x89PNG')
    assert made['mesh'] == {'data': 2, 'fsdp': 2, 'tensor': 1}
    assert made['fits'] and made['bytes']['total'] == sum(
        n for part, n in made['bytes'].items() if part != 'total'
    )
    assert made['compiled']['blocks'] == [2] and made['compiled']['extrapolated_to'] is None
    assert made['training']['tokens'] == 6 * 8 * 16
    assert {row['axes'] for row in made['compiled']['collectives']} >= {'fsdp'}


def test_the_table_has_all_of_it(planned):
    _, out = planned
    text = report.table(json.loads(out))
    for words in [*report.PARTS.values(), 'total', 'all-gather over fsdp', 'bound by', 'MFU']:
        assert words in text, words
    assert 'all 2 blocks' in text
    assert text.count('accumulate=') == 1 + plan.BEST


def test_the_folder_holds_nothing_that_a_training_would_refuse(planned):
    request, _ = planned
    assert sorted(x.name for x in request.workdir.iterdir()) == ['plan.json', 'plan.png']


def test_another_task_is_refused(tiny, tmp_path):
    import dataclasses

    config = dataclasses.replace(tiny, task='gan', name='toy')
    with pytest.raises(
        UserError, match='--mode=plan is for task=language_model, and toy is a gan;'
    ):
        mode.run(Request(config=config, workdir=tmp_path))


def test_a_mesh_that_needs_more_devices_is_refused(tiny):
    with pytest.raises(UserError, match='needs 8 devices, and there are 4; lower them'):
        plan.make(replace(tiny, plan={'devices': 4}, mesh={'tensor': 8}), quiet)


def test_a_plan_says_where_it_uses_fewer_devices(tiny, monkeypatch):
    said = []
    monkeypatch.setattr(
        plan.compiled,
        'compile_step',
        lambda *_: plan.compiled.Compiled((2,), dict.fromkeys(plan.compiled.PARTS, 0.0), ()),
    )
    made = plan.make(replace(tiny, plan={'devices': 64}), said.append)
    assert made['devices'] == 8
    assert 'Only 8 of 64 devices can share 8 rows at a time; the meshes below use all' in said
    assert 'collectives                                 none' in report.table(made)


def test_the_search_lists_only_meshes_that_divide(tiny):
    config = replace(tiny, plan={'devices': 12}, train={'batch_size': 24}, model={'n_embd': 32})
    found = list(search.meshes(config))
    assert found
    for sizes, accumulate in found:
        data, fsdp, tensor = sizes.values()
        assert data * fsdp * tensor == 12
        assert 24 % accumulate == 0 and 24 // accumulate % (data * fsdp) == 0
        assert 2 % tensor == 0 and 32 % fsdp == 0


def test_the_best_mesh_fits_and_is_the_fastest(tiny):
    config = replace(tiny, plan={'devices': 8}, model={'n_embd': 64, 'n_head': 8})
    best = search.best(shapes.of_vocabulary(config, 64), 1000)
    places = 2  # of the optimizer's state
    assert len(best) == len(list(search.meshes(config))) * len(search.REMAT) * places
    fitting = [x for x in best if x.fits]
    assert best[0].step.step_s == min(x.step.step_s for x in fitting)
    assert [x.rank for x in best] == sorted(x.rank for x in best)


def test_what_does_not_fit_comes_last(tiny):
    big = {'n_embd': 6144, 'n_head': 48, 'n_layer': 48, 'block_size': 1024}
    config = replace(tiny, plan={'devices': 8, 'chip': 'v5e'}, model=big)
    best = search.best(shapes.of_vocabulary(config, 50_257), 1000)
    assert not best[-1].fits
    assert [x.fits for x in best] == sorted((x.fits for x in best), reverse=True)


def test_blocks_are_computed_again_where_only_that_fits(tiny):
    big = {'n_embd': 2048, 'n_head': 16, 'n_layer': 24, 'block_size': 2048, 'n_hidden': 8192}
    train = {'batch_size': 16, 'logits_chunk': 256}
    config = replace(tiny, plan={'devices': 1, 'chip': 'h100'}, model=big, train=train)
    best = search.best(shapes.of_vocabulary(config, 50_257), 1000)
    of = {(x.accumulate, x.remat): x for x in best if not x.memory.offload}
    assert not of[1, 'none'].fits
    assert of[1, 'block'].fits
    slower, faster = of[16, 'block'].step, of[16, 'none'].step
    assert slower.compute_s > 1.2 * faster.compute_s


def test_the_slowest_resource_decides():
    step = Step(compute_s=1.0, memory_s=3.0, communication_s=2.0)
    assert (step.step_s, step.bound_by) == (3.0, 'memory')
    for bound, found in {'compute': Step(2, 1, 1), 'communication': Step(1, 1, 2)}.items():
        assert roofline.in_words(found, CHIPS['h100']).startswith(bound)
    assert '3.35 TB/s' in roofline.in_words(step, CHIPS['h100'])


def test_chips_have_a_peak():
    assert {chip.kind for chip in CHIPS.values()} <= PEAK_FLOPS.keys()
    assert CHIPS['h100'].peak_flops == 989e12


@pytest.mark.parametrize(
    ('data', 'size', 'words'),
    [
        ({'tokenizer': 'gpt2'}, 50_257, 'gpt2'),
        ({'tokenizer': 'byte'}, 257, 'byte'),
        ({'tokenizer': 'bpe', 'vocab_size': 512}, 512, 'assumed'),
        ({'tokenizer': 'char'}, 96, 'assumed'),
    ],
)
def test_vocabularies_without_a_text(tiny, tmp_path, data, size, words):
    config = replace(tiny, data={'path': '', 'cache_dir': str(tmp_path), **data})
    task, how = shapes.without_data(config, quiet)
    assert task.tokenizer.vocab_size == size
    assert words in how


def test_a_text_that_is_there_is_read(tiny, verse_file, tmp_path):
    assert shapes.without_data(tiny, quiet)[0].tokenizer.vocab_size == len(
        set(verse_file.read_text())
    )
    (tmp_path / 'texts').mkdir()
    (tmp_path / 'texts' / 'shakespeare-0-train.txt').write_text('abc' * 100)
    config = replace(tiny, data={'path': '', 'cache_dir': str(tmp_path)})
    task, how = shapes.without_data(config, quiet)
    assert task.tokenizer.vocab_size == 4  # with the end of a document
    assert 'shakespeare-0-train.txt' in how


def test_check_compares_with_what_is_measured(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '1')
    monkeypatch.setattr(mode.limit, 'of_step', lambda *_, **__: (1e-3, 1))
    monkeypatch.setattr(mode.limit, 'bandwidth', lambda n_bytes: 1e10)
    request = Request(config=tiny, workdir=tmp_path / 'none', check=True, as_json=True)
    assert mode.run(request) == 0
    found = json.loads(capsys.readouterr().out)
    for name in ('memory_by_compiler', 'memory_closed_form', 'step'):
        row = found[name]
        assert row['measured'] > 0
        assert row['error'] == pytest.approx(row['predicted'] / row['measured'] - 1)
    assert 'memory, by the compiler' in mode.check_table(found)
    assert not (tmp_path / 'none').exists()


def test_a_measurement_that_fails_is_a_line(tiny, monkeypatch):
    monkeypatch.setattr(measure.sys, 'executable', 'false')
    with pytest.raises(UserError, match=r'measuring a step ended with status 1 .*; use a smaller'):
        measure.measured(shapes.of_vocabulary(tiny, 64), quiet)
