"""--mode=bench: JAX against PyTorch on the same model, weights and batches, in turns."""

import dataclasses
import datetime
import functools
import importlib.util
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from gptjax import tasks
from gptjax.chips import hardware, model_flops_utilization
from gptjax.config import Config
from gptjax.console import say
from gptjax.errors import UserError
from gptjax.files import write_atomically
from gptjax.interop import hf_gpt2
from gptjax.models.linear import compute_dtype, matmul_dtype
from gptjax.modes import export_hf
from gptjax.modes.bench import peers, report
from gptjax.modes.bench.turns import compare, in_turns
from gptjax.modes.bench.worker import Arrays, Job, Worker
from gptjax.modes.request import Request
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.tasks.protocols import Task
from gptjax.training.checkpoint import flat_leaves
from gptjax.training.optim import make_optimizer
from gptjax.training.steps import run_key

JAX, TWIN = 'gptjax.modes.bench.jax_subject', 'gptjax.modes.bench.torch_subject'
PEERS = 'gptjax.modes.bench.peers'
MOST_DIFFERENT = 1e-4  # relative; more, and the two sides do not do the same work


def run(request: Request) -> int:
    """Proves that both sides do the same work, times them, and writes bench.json and bench.png."""
    config, workdir = request.config, request.workdir
    if config.task != 'language_model':
        raise UserError(
            f'--mode=bench compares language models, and {config.name} is a {config.task}; '
            'use a config such as configs/char.py'
        )
    if config.bench.prompt_tokens >= config.model.block_size:
        raise UserError(
            f'bench.prompt_tokens={config.bench.prompt_tokens} leaves no room in '
            f'model.block_size={config.model.block_size}; lower the first or raise the second'
        )
    has_torch = importlib.util.find_spec('torch') is not None
    if not has_torch:
        say("PyTorch is not installed: measuring JAX alone. For both: pip install -e '.[bench]'")
    if has_torch and config.train.optimizer == 'muon':
        say("PyTorch's Muon rounds otherwise than ours: both sides are measured with AdamW")
        train_config = dataclasses.replace(config.train, optimizer='adamw')
        config = dataclasses.replace(config, train=train_config)
    task = tasks.create(config, say)
    assert isinstance(task, LanguageModel)
    result: dict[str, Any] = {
        'command': f'{request.command} --mode=bench',
        'date': datetime.date.today().isoformat(),
        'hardware': hardware(),
        'tokens_per_step': task.tokens_per_step(),
        'parameters': task.count_params(),
        'flops_per_token': task.flops_per_token(),
    }
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(task, Path(folder))
        if has_torch:
            result['parity'] = parity(job)
            say(f'Same work: largest relative difference {result["parity"]["largest"]:.1e}')
        with ExitStack() as stack:
            workers = {'jax': stack.enter_context(Worker(JAX, job))}
            modes = ['eager', *(['compile'] if config.bench.torch_compile else [])]
            if job.config.model.dtype != job.config.train.matmul_dtype == 'bfloat16':
                modes += [f'{mode}_bfloat16' for mode in modes]  # As fast as it can be, too.
            for mode in modes if has_torch else []:
                mode_job = dataclasses.replace(job, mode=mode)
                workers[f'torch_{mode}'] = stack.enter_context(Worker(TWIN, mode_job))
            cached = start_peers(task, job, workers['jax'], stack)  # While weights are the job's.
            result['train'] = time_training(workers, config, task, result['flops_per_token'])
            workers |= cached
            result['generate'] = time_generation(workers, config)
            result['about'] = {name: worker.call('about') for name, worker in workers.items()}
            # Last, since it takes memory of its own.
            result['limit'] = workers['jax'].call('limit')
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir / 'bench.json', json.dumps(result, indent=1).encode() + b'\n')
    report.draw(result, workdir / 'bench.png')
    print(json.dumps(result) if request.as_json else report.table(result))
    say(f'Written: {workdir / "bench.json"} and {workdir / "bench.png"}')
    return 0


def make_job(task: LanguageModel, folder: Path) -> Job:
    """The work of both sides. Weights are noisy, so that no gradient is zero by initialisation."""
    params = jax.jit(lambda key: task.init_state(key).params)(run_key(task.config.train.seed))
    draw = np.random.default_rng(task.config.train.seed)
    weights = {
        name.removeprefix('params.'): np.asarray(leaf)
        + 0.02 * draw.standard_normal(leaf.shape, np.float32)
        for name, leaf in flat_leaves(params).items()
    }
    np.savez(folder / 'weights.npz', **weights)
    schedule = make_optimizer(task.config.train).schedule
    split = task.corpus.splits[0]
    config = task.config
    model = dataclasses.replace(config.model, dtype=compute_dtype(config.model))
    # The other side has no running mean.
    train = dataclasses.replace(config.train, matmul_dtype=matmul_dtype(config), average=0.0)
    return Job(
        config=dataclasses.replace(config, model=model, train=train),
        vocab_size=task.tokenizer.vocab_size,
        folder=folder,
        tokens_path=split.path,
        tokens_dtype=split.tokens.dtype.name,
        learning_rates=tuple(float(schedule(i)) for i in range(min(100, train.steps))),
    )


def parity(job: Job) -> dict:
    """Loss, every gradient, and the parameters after 3 steps, in float32 without dropout.

    A gradient that is zero but for rounding (that of a key's bias: softmax does not feel it) has to
    be so on both sides; Adam makes steps of its rounding, so that parameter is not compared.

    Returns:
      `loss` and `largest` (of the others) as relative differences; `where`; `passed`;
      `no_gradient`: the names of what has none.
    """
    model = dataclasses.replace(job.config.model, dropout=0.0, dtype='float32')
    train = dataclasses.replace(job.config.train, matmul_dtype='float32')
    config = dataclasses.replace(job.config, model=model, train=train)
    job = dataclasses.replace(job, config=config, exact=True, mode='eager')
    with Worker(JAX, job) as ours, Worker(TWIN, job) as theirs:
        gradients = [side.call('gradients') for side in (ours, theirs)]
        losses = [side.pop('loss') for side in gradients]
        for side in (ours, theirs):
            side.call('train', steps=3)
        parameters = [side.call('parameters') for side in (ours, theirs)]
    no_gradient = sorted(set.intersection(*map(_without_gradient, gradients)))
    for side in (*gradients, *parameters):
        for name in no_gradient:
            del side[name]
    differences = {f'gradient of {k}': v for k, v in difference(*gradients).items()}
    differences |= {f'{k} after 3 steps': v for k, v in difference(*parameters).items()}
    where = max(differences, key=differences.__getitem__)
    largest, loss = differences[where], float(abs(losses[0] - losses[1]) / losses[0])
    passed = max(loss, largest) <= MOST_DIFFERENT
    if not passed:
        say(f'Warning: the two sides differ by {largest:.1e} in {where}, by {loss:.1e} in the loss')
    compared = {'loss': loss, 'largest': largest, 'where': where, 'passed': passed}
    return compared | {'no_gradient': no_gradient}


def _without_gradient(gradients: Arrays) -> set[str]:
    norms = {name: np.linalg.norm(x) for name, x in gradients.items()}
    return {name for name, norm in norms.items() if norm <= 1e-6 * max(norms.values())}


def difference(ours: Arrays, theirs: Arrays) -> dict[str, float]:
    """Relative differences (2-norm) of arrays of the same names."""
    return {
        name: float(np.linalg.norm(x - theirs[name].reshape(x.shape)) / np.linalg.norm(x))
        for name, x in ours.items()
    }


def time_training(
    workers: dict[str, Worker], config: Config, task: Task, flops_per_token: float
) -> dict:
    """Seconds a step of each side, in turns; the first step, with its compilation, apart."""
    first_s = {name: worker.call('train', steps=1) for name, worker in workers.items()}
    tokens = task.tokens_per_step()
    timers = {name: functools.partial(_train, worker) for name, worker in workers.items()}
    measured = in_turns(timers, config, tokens, trial=10)
    device = jax.devices()[0].device_kind
    for name, figures in measured.items():
        flops_per_s = figures['tokens_per_s'] * flops_per_token
        figures['step_ms'] = 1e3 * tokens / figures['tokens_per_s']
        figures['flops_per_s'] = flops_per_s
        figures['mfu'] = model_flops_utilization(flops_per_s, device, 1)
        figures['first_step_s'] = first_s[name]
    return compare(measured)


def _train(worker: Worker, steps: int) -> float:
    return worker.call('train', steps=steps)


def start_peers(task: LanguageModel, job: Job, ours: Worker, stack: ExitStack) -> dict[str, Worker]:
    """Hugging Face's GPT-2 and CTranslate2 on our export, where they are installed and have it.

    Before anything is timed, the likeliest tokens after the prompt have to be the same for all.
    """
    if not (names := peers.installed()) or not huggingface_has(job.config):
        return {}
    params = unflatten_dict(job.weights(), sep='.')
    if not export_hf.write(task, params, job.exported):
        names = [name for name in names if name != 'ctranslate2']  # It needs a vocabulary.
    jobs = {name: dataclasses.replace(job, mode=name) for name in names}
    workers = {name: stack.enter_context(Worker(PEERS, job)) for name, job in jobs.items()}
    tokens = min(job.config.model.block_size - len(job.prompt()), 32)
    wanted = ours.call('continuation', tokens=tokens)
    for name, worker in workers.items():
        if worker.call('continuation', tokens=tokens) != wanted:
            say(f'Warning: {report.NAMES[name]} continues the prompt with other tokens')
    return workers


def time_generation(workers: dict[str, Worker], config: Config) -> dict:
    """Tokens a second of continuing a prompt, alone and in a batch.

    Within a block, also by the peers with a cache. `long` is as many tokens as
    `sample.max_new_tokens`, past the block, which the peers cannot.
    """
    once = ('jax', *peers.PACKAGES, *['torch_eager'] * config.bench.uncached)
    sides = {name: worker for name, worker in workers.items() if name in once}
    alone = {name: worker for name, worker in sides.items() if name not in peers.PACKAGES}
    short = min(config.model.block_size - config.bench.prompt_tokens, 255)
    many = config.bench.batch_size
    result: dict[str, Any] = {
        'batch_1': _time_texts(sides, config, 1, short),
        f'batch_{many}': _time_texts(sides, config, many, short),
        'long': _time_texts(alone, config, 1, config.sample.max_new_tokens),
    }
    return {'ratio': result['batch_1'].get('ratio'), **result}


def _time_texts(sides: dict[str, Worker], config: Config, batch_size: int, tokens: int) -> dict:
    def timer(worker: Worker) -> Callable[[int], float]:
        asked = {'batch_size': batch_size, 'tokens': tokens, 'greedy': config.bench.greedy}
        return lambda n: worker.call('generate', texts=n, **asked)

    timers = {name: timer(worker) for name, worker in sides.items()}
    measured = in_turns(timers, config, batch_size * tokens, trial=1)
    return {'batch_size': batch_size, 'new_tokens': tokens, **compare(measured)}


def huggingface_has(config: Config) -> bool:
    """Whether Hugging Face's GPT-2 can be this model."""
    model = config.model
    return (
        not hf_gpt2.lacking(model)
        and model.tied_head
        and model.activation != 'relu2'
        and not (model.qk_norm or model.scale_embedding)
    )
