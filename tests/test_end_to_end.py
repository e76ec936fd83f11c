"""A run as its user lives it: train, stop, resume, evaluate, sample."""

import html
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from gptjax.config import Config
from gptjax.errors import UserError
from gptjax.modes.request import Request, open_run
from gptjax.trainer import _only_one
from tests.conftest import ROOT, one_line, run_main

KNOBS = [
    '--config.model.block_size=16',
    '--config.model.n_layer=1',
    '--config.model.n_head=2',
    '--config.model.n_embd=16',
    '--config.model.ngram_rows=64',
    '--config.train.batch_size=4',
    '--config.train.steps=20',
    '--config.train.eval_every=10',
    '--config.train.save_every=10',
    '--config.sample.max_new_tokens=30',
]


@pytest.fixture(scope='module')
def home(tmp_path_factory, verse_file):
    """A folder with a trained run, and the flags that name it."""
    folder = tmp_path_factory.mktemp('home')
    shutil.copytree(ROOT / 'configs', folder / 'configs')
    text = folder / 'text.txt'
    shutil.copy(verse_file, text)
    flags = ['--config=configs/char.py:small', *KNOBS]
    data = [f'--config.data.path={text}', f'--config.data.cache_dir={folder / "cache"}']
    done = run_main(*flags, *data, '--mode=train', cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, flags, data, done


def sample(home, *args, **kwargs):
    folder, flags, _, _ = home
    return run_main(*flags, '--mode=sample', *args, cwd=folder, **kwargs)


def test_training_says_what_it_does_and_what_comes_next(home):
    folder, _, _, done = home
    assert 'No GPU found: training char:small, 7,504 parameters' in done.stderr
    assert re.search(', in float32( with bfloat16 products)? on one device\n', done.stderr)
    assert '20 steps of 64 tokens' in done.stderr
    assert 'step     20/20' in done.stderr
    assert 'Validation, whole split, step' in done.stderr
    *_, curves, _, _, report, advice, command = done.stderr.splitlines()
    assert curves == 'Curves: runs/char-small/loss.png. A sample:'
    assert report == 'Report: runs/char-small/report.html'
    assert advice == 'For more, type:'
    assert command.startswith('  python main.py --config=configs/char.py:small --config.model.blo')
    assert command.endswith(' --mode=sample')
    assert len(done.stdout) > 300  # The sample, and nothing else.
    run = folder / 'runs' / 'char-small'
    names = {path.name for path in run.iterdir()}
    assert names == {
        '.lock',
        'checkpoints',
        'config.json',
        'data.json',
        'loss.png',
        'manifest.json',
        'metrics.jsonl',
        'report.html',
        'starts.jsonl',
        'tokenizer.json',
        'val.bin',
    }


def test_eval_is_exact_and_self_contained(home, tmp_path):
    """The text, its cache and the config file's model may be gone."""
    folder, flags, _, trained = home
    away = folder / 'away'
    away.mkdir()
    for name in ('text.txt', 'cache'):
        (folder / name).rename(away / name)
    try:
        done = run_main(flags[0], '--mode=eval', '--json', cwd=folder)
        plain = run_main(flags[0], '--mode=eval', cwd=folder)
        drawn = run_main(flags[0], '--mode=sample', cwd=folder)
    finally:
        for name in ('text.txt', 'cache'):
            (away / name).rename(folder / name)
    figures = json.loads(done.stdout)
    assert figures.keys() == {'val_loss', 'bits_per_char', 'perplexity', 'tokens', 'step'}
    val = (folder / 'text.txt').read_text()
    assert figures['tokens'] == len(val) - int(len(val) * 0.9) - 1
    assert figures['bits_per_char'] == pytest.approx(figures['val_loss'] / 0.6931472, rel=1e-6)
    assert f'loss {figures["val_loss"]:.4f} nats' in trained.stderr
    assert plain.stdout.startswith(f'loss {figures["val_loss"]:.4f} nats per token')
    assert drawn.returncode == 0


def test_a_finished_run_says_so(home):
    folder, flags, data, _ = home
    done = run_main(*flags, *data, '--mode=train', cwd=folder)
    assert done.returncode == 0
    assert 'runs/char-small is finished: 20 steps are done. Train on with' in done.stderr
    assert '--config.train.steps=40' in done.stderr


def test_resume_never_refuses(home):
    folder, flags, data, _ = home
    done = run_main(*flags, *data, '--config.train.resume=never', cwd=folder)
    assert 'already holds a run and train.resume=never; use another' in one_line(done, 1)


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ('--config.model.n_layer=3', 'model.n_layer was 1 and is 3'),
        ('--config.data.tokenizer=byte', 'tokenizer was char (41, '),
        ('--config.data.path=other.txt', 'text was '),
        ('--config.data.val_fraction=0.2', 'validation tokens was '),
        ('--config.train.optimizer=sgd', 'train.optimizer was muon and is sgd'),
    ],
)
def test_a_changed_run_is_refused_before_it_compiles(home, change, named):
    folder, flags, data, _ = home
    (folder / 'other.txt').write_text((folder / 'text.txt').read_text() + 'More.')
    began = time.monotonic()
    done = run_main(*flags, *data, change, cwd=folder)
    assert time.monotonic() - began < 15
    line = one_line(done, 1)
    assert named in line
    assert 'Use the old settings, or another work directory' in line


def test_a_longer_run_continues_and_says_from_where(home, tmp_path):
    folder, flags, data, _ = home
    run = tmp_path / 'run'
    shutil.copytree(folder / 'runs' / 'char-small', run)
    longer = [*flags, *data, f'--workdir={run}', '--config.train.steps=30']
    done = run_main(*longer, cwd=folder)
    assert f'Continuing {run} from step 20 of 30' in done.stderr
    assert json.loads((run / 'config.json').read_text())['train']['steps'] == 30
    assert f'train.steps was 20 and is 30 from here on\nContinuing {run}' in done.stderr
    steps = [json.loads(line)['step'] for line in (run / 'metrics.jsonl').read_text().splitlines()]
    assert steps == [10, 20, 30]


def test_a_damaged_newest_checkpoint_is_named_and_replaced(home, tmp_path):
    folder, flags, data, _ = home
    run = tmp_path / 'run'
    shutil.copytree(folder / 'runs' / 'char-small', run)
    largest = max((run / 'checkpoints' / '20').rglob('*'), key=lambda p: p.stat().st_size)
    largest.write_bytes(b'x' + largest.read_bytes()[1:])
    done = run_main(*flags, *data, f'--workdir={run}', cwd=folder)
    assert done.returncode == 0, done.stderr
    assert 'Warning: checkpoint 20 in' in done.stderr
    assert f'Continuing {run} from step 10 of 20' in done.stderr
    assert (run / 'checkpoints' / '20' / 'manifest.json').exists()
    assert (run / 'checkpoints-damaged' / '20').exists()


def test_with_all_checkpoints_damaged_nothing_is_thrown_away(home, tmp_path):
    folder, flags, data, _ = home
    run = tmp_path / 'run'
    shutil.copytree(folder / 'runs' / 'char-small', run)
    for step in (10, 20):
        (run / 'checkpoints' / str(step) / 'manifest.json').unlink()
    done = run_main(*flags, *data, f'--workdir={run}', cwd=folder)
    assert done.returncode == 1
    assert f'main.py: no sound checkpoint in {run}' in done.stderr.splitlines()[-1]
    assert {p.name for p in (run / 'checkpoints').iterdir()} >= {'10', '20'}
    assert len((run / 'metrics.jsonl').read_text().splitlines()) == 2


def test_checkpoints_without_a_configuration_are_not_trained_over(home, tmp_path):
    folder, flags, data, _ = home
    run = tmp_path / 'run'
    shutil.copytree(folder / 'runs' / 'char-small', run)
    (run / 'config.json').unlink()
    done = run_main(*flags, *data, f'--workdir={run}', cwd=folder)
    assert 'has checkpoints but no config.json; restore that file' in one_line(done, 1)
    assert (run / 'metrics.jsonl').read_bytes() == (
        folder / 'runs' / 'char-small' / 'metrics.jsonl'
    ).read_bytes()


def test_closed_streams(home):
    folder, flags, _, _ = home
    for redirection in ('>&-', '2>/dev/full', '2>&-'):
        command = shlex.join([sys.executable, str(ROOT / 'main.py'), *flags, '--mode=sample'])
        done = subprocess.run(
            f'{command} {redirection}', shell=True, cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, (redirection, done.stderr)
        assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('name', ['config.json', 'tokenizer.json', 'data.json', 'val.bin'])
@pytest.mark.parametrize('damage', ['missing', 'nonsense'])
@pytest.mark.parametrize('has_manifest', [True, False])
def test_a_damaged_work_directory_is_one_line(home, tmp_path, name, damage, has_manifest):
    folder, _, _, _ = home
    run = tmp_path / 'run'
    shutil.copytree(folder / 'runs' / 'char-small', run)
    (run / name).unlink()
    if not has_manifest:  # As in version 0.1.0.
        (run / 'manifest.json').unlink()
    if damage == 'nonsense':
        (run / name).write_text('[]')
    request = Request(config=Config(), workdir=run)
    expected = f'the run in {run} is damaged'
    if name == 'tokenizer.json' and damage == 'nonsense' and not has_manifest:
        expected = 'not a tokenizer of a known kind'
    if name == 'config.json' and damage == 'missing':
        expected = 'no trained model'
    elif name == 'config.json' and not has_manifest:
        expected = 'cannot read'
    with pytest.raises(UserError, match=expected):
        open_run(request)


def test_a_second_training_of_a_work_directory_is_refused(tmp_path):
    with _only_one(tmp_path):
        refused = pytest.raises(UserError, match='is being trained by another process; wait')
        with refused, _only_one(tmp_path):
            pass
    with _only_one(tmp_path):
        pass


def test_a_text_without_line_breaks_can_be_sampled(home, tmp_path):
    folder, flags, data, _ = home
    (folder / 'dna.txt').write_text('GATTACA' * 300)
    common = [*flags, data[1], f'--workdir={tmp_path / "dna"}']
    done = run_main(*common, '--config.data.path=dna.txt', '--config.train.steps=2', cwd=folder)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.strip()) <= set('GATC')


def test_samples(home):
    done = sample(home, '--prompt=ROMEO:', '--prompt=JU', '--config.sample.num_samples=2', '--json')
    answer = json.loads(done.stdout)
    assert [s['prompt'] for s in answer['samples']] == ['ROMEO:', 'ROMEO:', 'JU', 'JU']
    assert {len(s['text']) for s in answer['samples']} == {30}
    assert answer['sampling']['max_new_tokens'] == 30
    alone_run = sample(home, '--prompt=JU', '--json', '--html=page.html')
    alone = json.loads(alone_run.stdout)
    assert 'Wrote page.html' in alone_run.stderr
    page = html.unescape((home[0] / 'page.html').read_text())
    assert '<p dir="ltr"><b>JU</b>' + alone['samples'][0]['text'] + '</p>' in page
    assert alone['samples'][0] == answer['samples'][2]
    streamed = sample(home, '--prompt=JU')
    assert streamed.stdout == 'JU' + alone['samples'][0]['text'] + '\n'
    several = sample(home, '--prompt=JU', '--config.sample.num_samples=2')
    assert several.stdout.startswith('--- 1 of 2 ---\nJU' + alone['samples'][0]['text'])


def test_prompts_from_standard_input(home):
    done = sample(home, '--prompt_file=-', '--json', input='ROMEO:\nJU\n')
    assert [s['prompt'] for s in json.loads(done.stdout)['samples']] == ['ROMEO:', 'JU']


def test_stop_strings(home):
    whole = json.loads(sample(home, '--json').stdout)['samples'][0]['text']
    stop = whole[10:12]
    done = sample(home, '--json', f'--config.sample.stop=({stop!r},)')
    assert json.loads(done.stdout)['samples'][0]['text'] == whole[: whole.index(stop)]


def test_unknown_characters_are_refused_or_dropped(home):
    line = one_line(sample(home, '--prompt=ROMEO ♥'), 1)
    assert "the character '♥' (U+2665) at position 6 is not in the vocabulary" in line
    done = sample(home, '--prompt=ROMEO♥:', '--config.sample.unknown=skip', '--json')
    assert "Dropped 1 unknown characters of the prompt; left: 'ROMEO:'" in done.stderr
    assert json.loads(done.stdout)['samples'][0]['prompt'] == 'ROMEO:'


def test_a_reader_that_has_enough_is_no_error(home):
    folder, flags, _, _ = home
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'main.py'), *flags, '--mode=sample'],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert b'Traceback' not in process.stderr.read()
    assert process.wait() == 0


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', 'is empty; give a text with --config.data.path=FILE'),
        ('too short', 'split of short.txt has 8 tokens, but model.block_size=16 needs at least 17'),
        ('x' * 100, 'the validation split of short.txt has 10 tokens, but model.block_size=16'),
    ],
)
def test_texts_too_short(home, content, message):
    folder, flags, data, _ = home
    (folder / 'short.txt').write_text(content)
    done = run_main(*flags, data[1], '--config.data.path=short.txt', '--workdir=s', cwd=folder)
    assert message in one_line(done, 1)


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves(home, tmp_path, number, status):
    folder, flags, data, _ = home
    run = tmp_path / 'run'
    command = [sys.executable, str(ROOT / 'main.py'), *flags, *data, f'--workdir={run}']
    command += ['--config.train.steps=1000000', '--config.train.save_every=1000000']
    process = subprocess.Popen(
        [*command, '--config.train.eval_every=1'],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1'},
    )
    for line in process.stderr:
        if line.startswith('step'):
            process.send_signal(number)
            break
    rest = process.stderr.read()
    assert process.wait(60) == status, rest
    assert f'Stopped by {number.name} and saved at step' in rest
    command = shlex.split(rest.splitlines()[-1])
    assert command[:2] == ['python', 'main.py']
    (saved,) = [p.name for p in (run / 'checkpoints').iterdir() if p.name.isdecimal()]
    assert f'saved at step {saved}.' in rest
    # What it prints is what continues it; only shorter, for the test.
    done = run_main(*command[2:], f'--config.train.steps={int(saved) + 1}', cwd=folder)
    assert f'Continuing {run} from step {saved}' in done.stderr


def test_a_width_that_stays_whole_is_told(tmp_path, verse_file):
    flags = ['--config.train.steps=1', '--config.mesh.tensor=2', '--config.model.n_embd=16']
    flags += ['--config.model.n_layer=1', '--config.model.block_size=16', '--config.model.ngram=1']
    place = [f'--workdir={tmp_path}/run', f'--config.data.path={verse_file}']
    env = {'JAX_NUM_CPU_DEVICES': '2'}
    done = run_main('--config=configs/char.py:small', *flags, *place, env=env)
    assert done.returncode == 0, done.stderr
    told = re.findall(r'(\S+): a width of (\d+) cannot be split into 2 parts', done.stderr)
    assert told == [('params/embed/embedding', '41'), ('params/head/kernel', '41')]
    assert '40 or 42 could be split' in done.stderr
