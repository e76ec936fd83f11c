"""--mode=data, and what a run of words leaves behind."""

import json

import pytest

from gptjax.modes import data
from gptjax.modes.request import Request
from tests.conftest import replace, run_main


@pytest.mark.parametrize('kind', ['char', 'byte', 'word', 'bpe'])
def test_data_shows_sizes_vocabulary_frequent_tokens_and_a_preview(tiny, tmp_path, capsys, kind):
    config = replace(tiny, data={'tokenizer': kind, 'vocab_size': 0})
    assert data.run(Request(config=config, workdir=tmp_path / 'run')) == 0
    out = capsys.readouterr().out
    assert f'({kind})' in out
    assert 'ROMEO:\nBut, soft!' in out
    assert not (tmp_path / 'run').exists()
    assert data.run(Request(config=config, workdir=tmp_path / 'run', as_json=True)) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures['train_chars'] + figures['val_chars'] == 5200
    assert figures['train_tokens'] == pytest.approx(4680 / figures['chars_per_token'])
    assert figures['frequent'][0][1] >= figures['frequent'][1][1]


def test_a_run_of_words(verse_file, tmp_path):
    flags = [
        '--config=configs/word.py',
        f'--workdir={tmp_path / "run"}',
        f'--config.data.path={verse_file}',
        f'--config.data.cache_dir={tmp_path / "cache"}',
        '--config.model.block_size=16',
        '--config.model.n_layer=1',
        '--config.model.n_embd=16',
        '--config.train.steps=2',
        '--config.train.batch_size=4',
    ]
    done = run_main(*flags, '--mode=train')
    assert done.returncode == 0, done.stderr
    table = (tmp_path / 'run' / 'vocabulary.csv').read_text()
    assert table.startswith('id,word,count\n0,<PAD>,\n1,<START>,\n2,<END>,\n3,<UNKNOWN>,\n')
    sample = [*flags, '--mode=sample', '--json', '--config.sample.max_new_tokens=40']
    (found,) = json.loads(run_main(*sample, '--prompt=ROMEO:').stdout)['samples']
    assert '<' not in found['text']  # No special token is ever drawn.
    done = run_main(*sample, '--prompt=ROMEO xyzzy')
    assert (done.returncode, done.stderr.count('\n')) == (1, 1)
    assert "the word 'xyzzy' is not in the vocabulary of" in done.stderr
    done = run_main(*sample, '--prompt=ROMEO xyzzy', '--config.sample.unknown=skip')
    assert json.loads(done.stdout)['samples'][0]['prompt'] == 'ROMEO'
