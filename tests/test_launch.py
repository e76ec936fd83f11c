"""The launchers: their syntax, and that they name flags and files that exist."""

import re
import subprocess

import pytest
from absl import flags

from gptjax import cli
from tests.conftest import ROOT

LAUNCHERS = sorted((ROOT / 'scripts' / 'launch').iterdir())


@pytest.mark.parametrize('path', LAUNCHERS, ids=lambda path: path.name)
def test_launchers_name_flags_that_exist(path):
    values = flags.FlagValues()
    cli.define_flags(values, [])
    used = re.findall(r'(?<= )--([a-z_]+)=?', path.read_text())
    ours = {name for name in used if name in values}
    assert ours >= {'config', 'mode'}
    for file in re.findall(r'configs/\w+\.py|scripts/launch/\S+\.(?:sh|yaml)', path.read_text()):
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize('path', [x for x in LAUNCHERS if x.suffix == '.sh'], ids=lambda p: p.name)
def test_scripts_parse(path):
    assert subprocess.run(['bash', '-n', str(path)], check=False).returncode == 0


def test_the_pods_get_all_flags_of_processes():
    text = (ROOT / 'scripts' / 'launch' / 'jobset.yaml').read_text()
    assert re.findall(r'- --(\w+)=', text)[-3:] == list(cli.PROCESS_FLAGS)
    count = re.search(r'--num_processes=(\d+)', text)[1]
    assert f'parallelism: {count}' in text and f'completions: {count}' in text
