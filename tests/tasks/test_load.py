"""Loading a run: damage is one line that names the file, and nothing else is called damage."""

import json

import pytest

from gptjax import run_files, tasks
from gptjax.config import Config
from gptjax.errors import UserError
from gptjax.tasks.gan.judge import Judge
from gptjax.tasks.language_model.task import LanguageModel


@pytest.fixture
def workdir(tiny, tmp_path):
    """A run without a manifest, as version 0.1.0 left it."""
    tasks.create(tiny, print).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize('error', [TypeError('3 is no text'), UserError('a message; its remedy')])
def test_programming_errors_and_good_messages_pass_as_they_are(tiny, workdir, monkeypatch, error):
    def load(config, workdir):
        raise error

    monkeypatch.setattr(LanguageModel, 'load', load)
    with pytest.raises(type(error)) as raised:
        tasks.load(tiny, workdir)
    assert raised.value is error


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'sha256': 3}, 'data.json has no sha256 of type str'),
        ({'val_chars': '12'}, 'data.json has no val_chars of type int'),
        ({'dtype': 'uint17'}, 'data.json has an unknown dtype'),
        ({'val_sha256': 'f'}, 'val.bin is not what was saved'),
    ],
)
def test_a_damaged_description_of_the_data_is_named(tiny, workdir, change, message):
    path = workdir / 'data.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=f'the run in {workdir} is damaged .*{message}'):
        tasks.load(tiny, workdir)


@pytest.mark.parametrize('content', [b'[]', b'\xff', b'{'])
def test_other_content_is_damage_too(tiny, workdir, content):
    (workdir / 'data.json').write_bytes(content)
    with pytest.raises(UserError, match=r'is damaged .*data\.json'):
        tasks.load(tiny, workdir)


def test_a_damaged_configuration_of_a_judge_is_one_line(workdir):
    (workdir / 'config.json').write_text('{')
    (workdir / 'checkpoints' / '1').mkdir(parents=True)
    assert run_files.is_trained(workdir)
    with pytest.raises(UserError, match=r'cannot read .*config\.json .*; restore it') as raised:
        Judge(workdir, Config(), None)
    assert '\n' not in str(raised.value)
