"""The model of docs/explain.md has the heads that the page names."""

import re
import subprocess
import sys

import pytest

import gptjax
from tests.conftest import AS_USERS, ROOT, run_main


@pytest.mark.slow(minutes=6)
def test_the_documented_model_has_an_induction_head(tmp_path):
    text = (ROOT / 'docs' / 'explain.md').read_text()
    script = re.search(r'```python\n(import random\n.*?)```', text, re.S)[1]
    subprocess.run([sys.executable, '-c', script], cwd=tmp_path, check=True)
    flags = re.search(r'(--config=\S+ --workdir=runs/repeats .*?--mode=train)', text, re.S)[1]
    flags = flags.replace('configs/', f'{ROOT}/configs/').replace('\\', '').split()
    cache = f'--config.data.cache_dir={tmp_path}'
    done = run_main(*flags, cache, cwd=tmp_path, env=AS_USERS)
    assert done.returncode == 0, done.stderr
    found = gptjax.load(tmp_path / 'runs' / 'repeats').explain('abqxkzmwrtpabqxkzmwrt')
    heads = found.numbers['heads']
    first, second = heads['labels']
    assert 'previous token' in first and 'induction' in second
    # Both are needed: without either the repeated half is guessed.
    assert heads['loss_increase'][0][first.index('previous token')] > 0.3
    assert heads['loss_increase'][1][second.index('induction')] > 0.3
