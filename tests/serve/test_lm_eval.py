"""The Language Model Evaluation Harness, asking the server, gets the loss of --mode=eval."""

import json

import numpy as np
import pytest

from tests.conftest import VERSE

pytestmark = pytest.mark.lm_eval

TASK = """
task: verse
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""


def test_lm_eval_gets_the_loss_of_eval(address, runs, tmp_path, monkeypatch):
    monkeypatch.setenv('HF_DATASETS_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    import lm_eval
    from lm_eval.tasks import TaskManager

    run = runs[0]
    block_size = run.config.model.block_size
    # Whole windows, since lm-eval gives a part of one at the end more context.
    text = (VERSE * 9)[: 40 * block_size + 1]
    (tmp_path / 'verse.txt').write_text(text)
    expected = run.evaluate(tmp_path / 'verse.txt').val_loss  # Of all tokens but the first one.
    first, *rest = run.task.tokenizer.encode(text).tolist()
    (tmp_path / 'verse.jsonl').write_text(json.dumps({'text': text[1:]}))
    (tmp_path / 'tasks').mkdir()
    (tmp_path / 'tasks' / 'verse.yaml').write_text(TASK.format(file=tmp_path / 'verse.jsonl'))
    asked = {
        'model': 'char',
        'base_url': f'{address}/v1/completions',
        'tokenizer_backend': 'remote',
        'custom_prefix_token_id': first,
        'max_length': block_size
        + 2,  # Of which it keeps one for the prefix, and one for the answer.
        'num_concurrent': 4,
    }
    found = lm_eval.simple_evaluate(
        model='local-completions',
        model_args=asked,
        tasks=['verse'],
        task_manager=TaskManager(include_path=str(tmp_path / 'tasks')),
        bootstrap_iters=0,
    )
    bits = found['results']['verse']['bits_per_byte,none']
    nats = bits * np.log(2) * len(text[1:].encode()) / len(rest)
    assert nats == pytest.approx(expected, rel=1e-5)
