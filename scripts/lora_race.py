"""Fine-tuning an imported GPT-2 with LoRA: gptjax against PEFT, in turns, on the same batches.

  pip install -e '.[bench]' peft
  python main.py --config=configs/gpt2.py --mode=import --source=gpt2
  python scripts/lora_race.py --config=configs/gpt2_finetune.py --config.train.lora_rank=8 \\
    --config.model.block_size=64 --config.train.batch_size=4 --config.model.dropout=0.0 \\
    --config.train.logits_chunk=0

Both change query, key and value in every block: PEFT by one matrix for all three. Prints JSON.
"""

import dataclasses
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MODES = ('eager', 'compile', 'eager_bfloat16', 'compile_bfloat16')


def main(argv: list[str]) -> None:
    """Times all sides."""
    del argv
    from gptjax import tasks
    from gptjax.chips import hardware
    from gptjax.config import from_config_dict
    from gptjax.console import say
    from gptjax.modes.bench.run import JAX, make_job
    from gptjax.modes.bench.turns import compare, in_turns
    from gptjax.modes.bench.worker import Worker

    config = from_config_dict(flags.FLAGS.config)
    train = dataclasses.replace(config.train, lora_targets=('query', 'key', 'value'))
    task = tasks.create(dataclasses.replace(config, train=train), say)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        job = make_job(task, Path(folder))
        sides = {'jax': stack.enter_context(Worker(JAX, job))}
        for mode in MODES:
            mode_job = dataclasses.replace(job, mode=mode)
            worker = Worker('scripts.peft_subject', mode_job)
            sides[f'torch_{mode}'] = stack.enter_context(worker)
        timers = {
            name: lambda n, side=side: side.call('train', steps=n) for name, side in sides.items()
        }
        tokens = task.tokens_per_step()
        result = compare(in_turns(timers, config, tokens, trial=1))
    for name, side in result['sides'].items():
        side['step_ms'] = 1e3 * tokens / side['tokens_per_s']
        ratios = result['ratios'].get(name, {'median': 1.0, 'all': [1.0]})
        spread = f'{min(ratios["all"]):.2f} to {max(ratios["all"]):.2f}'
        times = f'{ratios["median"]:.2f} ({spread}) times as fast'
        say(f'{name}: {side["step_ms"]:.0f} ms; ours {times}')
    result['matmul_dtype'] = job.config.train.matmul_dtype
    result['over_best'] = statistics.median(result['ratios'][result['best']]['all'])
    print(json.dumps(result | {'hardware': hardware()}))


if __name__ == '__main__':
    from ml_collections import config_flags

    config_flags.DEFINE_config_file('config')
    app.run(main)
