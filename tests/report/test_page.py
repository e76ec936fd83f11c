"""The report of a run: a function of its work directory, at any moment of its life."""

import dataclasses
import errno
import html.parser
import json
import re
import shutil

import pytest

import gptjax
from gptjax import run_files, starts
from gptjax.errors import UserError
from gptjax.metrics_log import read_metrics
from gptjax.modes import report
from gptjax.modes.request import Request
from gptjax.report import live, record
from gptjax.report.page import Report
from tests.conftest import one_line, replace, run_main

MOST_BYTES = 500_000


@pytest.fixture(scope='module')
def trained(tiny, tmp_path_factory):
    """A run that was stopped once and went on."""
    folder = tmp_path_factory.mktemp('runs') / 'a'
    for steps in (6, 12):
        gptjax.train(replace(tiny, train={'steps': steps, 'schedule': 'constant'}), folder)
    return folder


@pytest.fixture(scope='module')
def made(trained):
    """Its report."""
    return make(trained)


@pytest.fixture
def workdir(trained, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(trained, tmp_path / 'run')


def make(workdir, **options):
    return report.make(record.read(workdir), gptjax.load(workdir), **options)


class Page(html.parser.HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ''
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_page_is_complete_small_and_fetches_nothing(trained, made):
    text = made.to_html()
    page = Page(text)
    assert len(text.encode()) < MOST_BYTES
    assert not [tag for tag, _ in page.elements if tag in ('script', 'img', 'link', 'iframe')]
    assert not [a for _, attrs in page.elements for a in attrs if a in ('style', 'src', 'href')]
    assert not re.search(r'https?://', text)
    (policy,) = [a['content'] for tag, a in page.elements if a.get('http-equiv')]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    for words in (
        *('Step 12 of 12', 'Loss by the time', 'unigrams', 'Loss by position', 'Calibration'),
        *('Samples, by checkpoint', 'train.learning_rate', 'went on from step 6'),
        *('in the training', json.loads((trained / 'data.json').read_text())['sha256']),
    ):
        assert words in page.text, words


def test_every_picture_has_a_name_and_a_table(made):
    page = Page(made.to_html())
    pictures = [attrs for tag, attrs in page.elements if attrs.get('role') == 'img']
    assert len(pictures) >= 5 and all(attrs['aria-label'] for attrs in pictures)
    assert page.text.count('as a table') == len(pictures)


def test_the_same_work_directory_gives_the_same_page(trained, made):
    again = make(trained)
    assert again.to_html() == made.to_html()
    assert again.to_json() == made.to_json()


def test_time_adds_up(trained):
    found, rows = record.read(trained), read_metrics(trained / 'metrics.jsonl')
    shares, whole = found.shares(), rows[-1]['elapsed_s'] + rows[-1]['eval_s']
    assert set(shares) == {'steps', 'eval', 'save', 'compile', 'rest'}
    steps = [0, *(row['step'] for row in rows)]
    seconds = sum(
        row.get('step_ms', 0) / 1e3 * (row['step'] - before)
        for before, row in zip(steps, rows, strict=False)
    )
    logged = {name: sum(row.get(f'{name}_s', 0) for row in rows) for name in shares}
    logged['steps'] = seconds
    assert sum(logged.values()) <= 1.05 * whole  # No second counts twice.
    for name in ('steps', 'eval', 'save', 'compile'):
        assert 0 < shares[name] == pytest.approx(logged[name] / whole, rel=0.2), name
    assert [start.step for start in found.starts] == [0, 6]
    assert len(found.curves['compile_s']) == 2  # Once for each process.


def test_json_has_the_figures_of_the_run(trained, made):
    found = json.loads(made.to_json())
    run = gptjax.load(trained)
    assert found['model']['figures']['val_loss'] == pytest.approx(run.evaluate().val_loss)
    assert found['model']['by_token']['loss'] == pytest.approx(run.evaluate().val_loss, rel=1e-5)
    assert found['best'][1] == min(row['val_loss'] for row in run.metrics if 'val_loss' in row)
    steps = [sample['step'] for sample in found['model']['samples']]
    assert steps == sorted(steps) and run.step in steps and 12 in steps


def test_a_half_written_log_is_no_obstacle(workdir):
    with open(workdir / 'metrics.jsonl', 'a') as file:
        file.write('{"step": 14, "elapsed_s": 9.0, "train_lo')
    with open(workdir / 'starts.jsonl', 'a') as file:
        file.write('{"step": 12, "ti')
    assert record.read(workdir).last_step == 12
    assert len(starts.read(workdir)) == 2


def test_a_run_without_rows_or_records_of_an_older_version_has_a_page(workdir):
    (workdir / 'starts.jsonl').unlink()
    (workdir / 'metrics.jsonl').unlink()
    text = Page(Report(record.read(workdir), '').to_html()).text
    assert 'There are no rows' in text and 'does not tell when' in text


def test_a_run_that_has_no_checkpoint_yet_has_a_page(workdir):
    shutil.rmtree(workdir / 'checkpoints')
    found = report.make(record.read(workdir), None)
    assert 'come when training ends' in Page(found.to_html()).text


def test_a_damaged_checkpoint_is_left_out_of_the_samples(workdir, capsys):
    best = gptjax.load(workdir).step
    step = next(step for step in run_files.checkpoints(workdir).saved() if step != best)
    shutil.rmtree(workdir / 'checkpoints' / str(step) / 'default')
    found = make(workdir).model
    assert step not in [sample.step for sample in found.samples]
    assert 'damaged' in capsys.readouterr().err


def test_a_million_steps_fit(workdir):
    rows = read_metrics(workdir / 'metrics.jsonl')
    row = {**rows[-1], 'val_loss': 2.0}
    with open(workdir / 'metrics.jsonl', 'w') as file:
        for step in range(10, 1_000_001, 10):
            row |= {'step': step, 'elapsed_s': step / 50, 'train_loss': 2 + 9 / step}
            file.write(json.dumps(row) + '\n')
    found = Report(record.read(workdir), '')
    assert found.record.last_step == 1_000_000
    assert len(found.to_html().encode()) < MOST_BYTES


def test_names_cannot_become_elements(workdir):
    found = record.read(workdir)
    name = '</title><script>alert(1)</script>'
    hostile = dataclasses.replace(found, config=dataclasses.replace(found.config, name=name))
    page = Page(Report(hostile, name).to_html())
    assert 'script' not in [tag for tag, _ in page.elements]


def test_runs_stand_side_by_side(trained):
    first = record.read(trained)
    others = [
        dataclasses.replace(
            first,
            workdir=trained.with_name(f'seed{seed}'),
            config=replace(first.config, train={'steps': 3, 'seed': seed}),
        )
        for seed in (1, 2)
    ]
    text = Page(Report(first, '', others=others).to_html()).text
    assert 'Side by side' in text and 'Knobs that differ' in text
    assert '2 seeds of' in text and 'train.steps' in text


def test_verify_evaluates_again(workdir):
    run = gptjax.load(workdir)
    # Training evaluated on one device, and this is split over several.
    assert re.search(r'a difference of (0e\+00|\de-0[6-9])$', report.verify(run))
    for path in (workdir / 'checkpoints').glob('*/metrics/metrics'):
        path.write_text(json.dumps({'val_loss': 0.5}))
    with pytest.raises(UserError, match=r'and 0\.500000 was saved with it; restore'):
        report.verify(run)
    for path in (workdir / 'checkpoints').glob('*/metrics/metrics'):
        path.unlink()
    with pytest.raises(UserError, match=r'saved without a validation loss.*leave out --verify'):
        report.verify(run)


def test_the_command_writes_it_or_says_why_not(workdir, tmp_path, capsys):
    request = Request(config=gptjax.load(workdir).config, workdir=workdir, verify=True)
    assert report.run(request) == 0
    assert 'Evaluated again' in (workdir / 'report.html').read_text()
    assert report.run(dataclasses.replace(request, as_json=True, html=str(tmp_path / 'x'))) == 0
    assert json.loads(capsys.readouterr().out)['step'] == 12
    shutil.rmtree(workdir / 'checkpoints')
    with pytest.raises(UserError, match=r'--verify evaluates a checkpoint again, and .* has none'):
        report.run(request)
    for workdirs in ({'workdir': tmp_path}, {'against': (str(tmp_path),)}):
        with pytest.raises(UserError, match='there is no run in'):
            report.run(dataclasses.replace(request, verify=False, **workdirs))


def test_flags_reach_it(workdir, tmp_path):
    done = run_main(
        *('--config=configs/char.py:small', '--mode=report', f'--workdir={workdir}'),
        *(f'--against={tmp_path}/none', '--verify'),
    )
    assert 'there is no run in' in one_line(done, 1)


def test_the_page_is_written_while_the_run_is_trained(workdir, monkeypatch):
    monkeypatch.setattr(live, 'EVERY_S', -1.0)
    page = workdir / 'report.html'
    page.unlink(missing_ok=True)
    with live.LiveReport(workdir, lambda rows: f'{len(rows)} rows') as report_of_run:
        report_of_run.append({'step': 12, 'train_loss': 1.0})
        assert not page.exists()  # No evaluation.
        report_of_run.append({'step': 12, 'val_loss': 1.0})
        assert 'rows.' in page.read_text()
        page.unlink()
    assert page.exists()


def test_a_page_that_cannot_be_written_does_not_stop_training(workdir, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(live, 'write_atomically', full)
    with live.LiveReport(workdir, lambda rows: ''):
        pass
    assert 'No space left on device); training goes on' in capsys.readouterr().err
    with pytest.raises(ValueError), live.LiveReport(workdir, lambda rows: ''):
        raise ValueError  # The reason is told elsewhere.
    assert capsys.readouterr().err == ''


def test_what_is_no_page_of_ours_stays(workdir):
    (workdir / 'report.html').write_text('my own notes')
    with live.LiveReport(workdir, lambda rows: ''):
        pass
    assert (workdir / 'report.html').read_text() == 'my own notes'


@pytest.mark.browser
def test_the_page_opens_narrow_and_dark_without_a_complaint(made, tmp_path):
    from tests import browser

    path = tmp_path / 'report.html'
    report.write(made, path)
    driver = browser.start(**{'window-size': '360,800'})
    try:
        driver.execute_cdp_cmd(
            'Emulation.setDeviceMetricsOverride',
            {'width': 360, 'height': 800, 'deviceScaleFactor': 1, 'mobile': True},
        )
        driver.get(path.as_uri())
        for scheme, paper in (('light', 'rgb(255, 255, 255)'), ('dark', 'rgb(22, 24, 27)')):
            media = {'name': 'prefers-color-scheme', 'value': scheme}
            driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [media]})
            found = driver.execute_script('return getComputedStyle(document.body).backgroundColor')
            assert found == paper
        assert driver.execute_script('return document.documentElement.scrollWidth') <= 360
        assert browser.messages(driver) == []
    finally:
        driver.quit()


HUGE = '1' * 400


@pytest.mark.parametrize(
    'line',
    [
        *('{"step": NaN, "elapsed_s": NaN}', '{"step": 1e30, "elapsed_s": 1}', '[' * 9999),
        *('{"step": "a", "elapsed_s": "b"}', f'{{"step": {HUGE}, "elapsed_s": {HUGE}}}'),
        *('{"step": 5, "elapsed_s": 1, "val_loss": 0.1}', '{"step": 99, "elapsed_s": Infinity}'),
        *('{"step": 99, "elapsed_s": 99, "val_loss": null}', '{"step": true, "elapsed_s": 1}'),
        f'{{"step": 99, "elapsed_s": 99.5, "grad_norm": {HUGE}, "val_loss": [1]}}',
    ],
)
def test_a_line_that_is_nonsense_costs_the_report_nothing(workdir, line):
    best = record.read(workdir).best
    with open(workdir / 'metrics.jsonl', 'a') as file:
        file.write(line + '\n')
    found = Report(
        record.read(workdir), gptjax.load(workdir).task.verdict(gptjax.load(workdir).metrics)
    )
    assert found.to_html() and json.loads(found.to_json())
    assert found.record.best == best


@pytest.mark.parametrize(
    'line', ['{"step": "5"}', '[]', '[' * 9999, '{"step": 5, "versions": []}', 'null']
)
def test_starts_that_are_nonsense_are_left_out(workdir, line):
    with open(workdir / 'starts.jsonl', 'a') as file:
        file.write(line)  # Cut off: the next start has a line of its own.
    starts.note(workdir, 12, 'x')
    assert [start.step for start in starts.read(workdir)] == [0, 6, 12]


def test_a_run_is_not_compared_with_itself(workdir):
    request = Request(config=gptjax.load(workdir).config, workdir=workdir)
    twice = dataclasses.replace(request, against=(str(workdir / '..' / workdir.name),))
    with pytest.raises(UserError, match=r'is a run that is there already: .* leave it out'):
        report.run(twice)


def test_verify_does_not_take_another_checkpoint_than_was_asked_for(workdir):
    best = gptjax.load(workdir).step
    shutil.rmtree(workdir / 'checkpoints' / str(best) / 'default')
    with pytest.raises(UserError, match=f'checkpoint {best} of .* is damaged; restore it'):
        report.verify(gptjax.load(workdir))


def test_json_does_not_care_about_a_page_that_is_not_ours(workdir, capsys):
    (workdir / 'report.html').write_text('mine')
    config = gptjax.load(workdir).config
    assert report.run(Request(config=config, workdir=workdir, as_json=True)) == 0
    assert json.loads(capsys.readouterr().out) and (workdir / 'report.html').read_text() == 'mine'
