"""Every config file trains for two steps, evaluates, shows a sample and names the next command."""

import json

import pytest

from tests.conftest import AS_USERS, ROOT, run_main

ARGUMENTS = {
    'bigram': [''],
    'bpe': [''],
    'char': ['small', 'laptop', 'baby'],
    'char_nanogpt': ['cpu', 'gpu'],
    'gpt2': ['124m', '355m', '774m', '1558m'],
    'gpt2_finetune': ['shakespeare', 'hafez'],
    'notebook': ['small', 'large'],
    'persian': ['bpe', 'char'],
    'textbook': ['sgd', 'adamw'],
    'word': [''],
}
# Those that take pairs, and answer a prompt on a line of its own.
PAIRS = {'reverse': [''], 'translate': ['small', 'base']}
GANS = {'gan': ['fortunes', 'pure', 'toy', 'paper', 'judge']}
# The real architecture at a size that compiles quickly; the real recipe on a text at hand.
SMALL = [
    '--config.train.steps=2',
    '--config.train.eval_every=2',
    '--config.train.eval_batches=1',
    '--config.train.save_every=2',
    '--config.train.batch_size=4',
    '--config.model.block_size=16',
    '--config.model.n_layer=1',
    '--config.model.n_head=2',
    '--config.model.n_embd=16',
    '--config.sample.max_new_tokens=8',
]


def test_every_config_is_listed_here():
    found = {path.stem for path in (ROOT / 'configs').glob('*.py')}
    assert found == {*ARGUMENTS, *PAIRS, *GANS}


QUICK = ('char', 'reverse')


def compiled(config: str) -> dict[str, str]:
    """Two steps take longer to compile than to do, but for GPT-2's vocabulary; see conftest.py."""
    return AS_USERS if 'gpt2' in config else {}


def each(arguments: dict[str, list[str]]):
    """All configs; most are among the long tests."""
    return [
        pytest.param(
            f'configs/{name}.py:{argument}'.rstrip(':'),
            marks=[pytest.mark.slow] * (i > 0 or name not in QUICK),
        )
        for name, several in arguments.items()
        for i, argument in enumerate(several)
    ]


@pytest.mark.parametrize('config', each(ARGUMENTS))
def test_config_trains(config, tmp_path, verse_file):
    common = [f'--config={config}', f'--workdir={tmp_path / "run"}', *SMALL]
    # The verses are one document.
    common += [f'--config.data.path={verse_file}', '--config.data.split=end']
    if 'finetune' in config:
        start = ['--config=configs/char_nanogpt.py:cpu', f'--workdir={tmp_path / "start"}']
        start += [*SMALL, f'--config.data.path={verse_file}']
        done = run_main(*start, '--mode=train', env=compiled(config))
        assert done.returncode == 0, done.stderr
        common.append(f'--config.train.init_from={tmp_path / "start"}')
    done = run_main(*common, '--mode=train', env=compiled(config))
    assert done.returncode == 0, done.stderr
    assert f'training {config[8:].replace(".py", "")}' in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f'  python main.py --config={config} ')
    assert done.stdout.strip()


@pytest.mark.parametrize('config', each(PAIRS))
def test_config_learns_to_translate(config, tmp_path):
    pairs = tmp_path / 'pairs.tsv'
    pairs.write_text(''.join(f'{"ab" * n}\t{"ba" * n}\n' for n in (1, 2, 3, 4, 5, 6) * 3))
    common = [f'--config={config}', f'--workdir={tmp_path / "run"}', *SMALL]
    done = run_main(*common, f'--config.data.path={pairs}', '--mode=train', env=compiled(config))
    assert done.returncode == 0, done.stderr
    assert f'training {config[8:].replace(".py", "")}' in done.stderr
    assert 'for a copy of the source' in done.stderr
    assert done.stdout.strip()


@pytest.mark.slow  # The step of both players takes long to compile.
@pytest.mark.parametrize('config', each(GANS))
def test_gan_config_trains(config, tmp_path):
    small = [flag for flag in SMALL if 'n_layer' not in flag or config.endswith(':judge')]
    common = [f'--config={config}', f'--workdir={tmp_path / "run"}', *small]
    toy = ROOT / 'data' / 'toy_language.txt'
    data = [f'--config.data.path={toy}', '--config.data.val_path=']
    data += [f'--config.data.cache_dir={tmp_path}', '--config.data.val_fraction=0.3']
    if config.endswith(':judge'):  # A language model, to which these lines are one document.
        data.append('--config.data.split=end')
    gan = ['splitter=line', 'min_words=1', 'max_words=14', 'n_critic=1', 'n_mapping=2']
    gan += ['n_noise_layer=1', 'n_plain_layer=1', 'n_critic_layer=1', 'n_class_layer=1']
    gan += ['pretrain_steps=1', 'critic_steps=0']
    common += ['--config.model.n_hidden=16']
    common += ['--config.sample.num_samples=2']
    if not config.endswith(':judge'):
        common += [f'--config.gan.{knob}' for knob in gan]
        common += ['--config.gan_sampling.samples=20']
    done = run_main(*common, *data, '--mode=train', env=compiled(config))
    assert done.returncode == 0, done.stderr
    assert f'training {config[8:].replace(".py", "")}, ' in done.stderr
    assert 'Validation, whole split, step' in done.stderr
    assert done.stdout.strip()


@pytest.mark.slow(minutes=7)
def test_the_toy_language_is_learnt(tmp_path):
    common = ['--config=configs/gan.py:toy', f'--workdir={tmp_path / "run"}']
    done = run_main(*common, '--mode=train', timeout=2400, env=AS_USERS)
    assert done.returncode == 0, done.stderr
    done = run_main(*common, '--mode=sample', '--json', '--config.sample.num_samples=1000')
    written = [sample['text'] for sample in json.loads(done.stdout)['samples']]
    language = (ROOT / 'data' / 'toy_language.txt').read_text().splitlines()
    assert sum(text in language for text in written) >= 900
    assert len(set(written) & set(language)) >= 60  # Of 72, of which 50 were learnt from.


def test_the_header_of_a_config_has_its_command():
    for path in (ROOT / 'configs').glob('*.py'):
        assert f'python main.py --config=configs/{path.name}' in path.read_text()
