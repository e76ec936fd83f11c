"""--mode=import: a GPT-2 in Hugging Face's files becomes a work directory."""

import dataclasses
import json
import math
import shlex
from pathlib import Path

import jax
import numpy as np

from gptjax import extras, run_files
from gptjax.console import say
from gptjax.errors import UserError
from gptjax.interop import hf_gpt2, hf_tokenizer
from gptjax.modes.request import Request
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.text import archives
from gptjax.text.bpe import BpeTokenizer
from gptjax.text.corpora import cache_folder
from gptjax.text.token_files import Corpus
from gptjax.training.checkpoint import flat_leaves
from gptjax.training.steps import init_state, run_key

WANTED = ('config.json', '*.safetensors', 'tokenizer.json', 'vocab.json', 'merges.txt')


def run(request: Request) -> int:
    """Writes the work directory and says what can be done with it."""
    workdir = request.workdir
    if run_files.config_path(workdir).exists() or run_files.checkpoints(workdir).saved():
        raise UserError(f'{workdir} already holds a run; use another --workdir')
    if not request.source:
        raise UserError('--mode=import needs --source=DIR, or the name of a model on the hub')
    folder = _folder(request.source)
    task, params = load(request, folder)
    state = init_state(jax.tree.map(jax.numpy.asarray, params), task.optimizer, run_key(0))
    del params
    workdir.mkdir(parents=True, exist_ok=True)
    saved = run_files.checkpoints(workdir)
    saved.save(state, math.inf)
    saved.close()
    run_files.save(task.config, task.save, workdir)
    say(f'Imported {task.describe_model()} from {folder} into {workdir}. Now type, for example:')
    say(f'  {request.command} --mode=sample')
    finetune = f'{request.program} --config=gpt2_finetune --mode=train'
    say(f'  {finetune} --config.train.init_from={shlex.quote(str(workdir))}')
    return 0


def load(request: Request, folder: Path) -> tuple[LanguageModel, dict]:
    """The task of a folder and its parameters; raises UserError if something does not fit."""
    try:
        theirs = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(
            f'{folder / "config.json"} cannot be read ({error}); give the folder of a GPT-2'
        ) from None
    knobs = hf_gpt2.config_to_ours(theirs)
    free = {name: getattr(request.config.model, name) for name in ('dtype', 'attention')}
    tokenizer = hf_tokenizer.read(folder)
    vocab_size = theirs.get('vocab_size')
    if tokenizer is None:
        if vocab_size != 50_257:
            raise UserError(
                f'{folder} has no tokenizer (tokenizer.json, or vocab.json and merges.txt), and '
                f"its vocabulary of {vocab_size} is not GPT-2's; add these files"
            )
        cache_dir = cache_folder(request.config.data)
        tokenizer = BpeTokenizer.gpt2(archives.vocabulary('gpt2', cache_dir, say))
    if vocab_size != tokenizer.vocab_size:
        raise UserError(
            f'{folder} has a tokenizer of {tokenizer.vocab_size} tokens and a model of '
            f'{vocab_size}; get all files of one model again'
        )
    config = dataclasses.replace(
        request.config,
        model=dataclasses.replace(request.config.model, **knobs | free | {'vocab_multiple': 1}),
        data=dataclasses.replace(request.config.data, tokenizer=tokenizer.kind, path=''),
        # Only a starting point: with SGD its checkpoint has no optimizer moments to store.
        train=dataclasses.replace(
            request.config.train, optimizer='sgd', average=0.0, init_from='', lora_rank=0
        ),
    )
    task = LanguageModel(config, Corpus(tokenizer, None, None, sha256='imported'))
    like = jax.eval_shape(task.init_state, run_key(0)).params
    shapes = {name.removeprefix('params.'): leaf.shape for name, leaf in flat_leaves(like).items()}
    ours = hf_gpt2.to_ours(_weights(folder), task.config.model, shapes)
    return task, jax.tree.unflatten(jax.tree.structure(like), [ours[name] for name in shapes])


def _folder(source: str) -> Path:
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists() or source.startswith(('.', '/', '~')) or source.count('/') > 1:
        raise UserError(f'--source={source} is no folder; give one, or the name of a hub model')
    hub = extras.need('huggingface_hub', 'hf')
    say(f'Fetching {source} from the Hugging Face hub')
    try:
        return Path(hub.snapshot_download(source, allow_patterns=list(WANTED)))
    except Exception as error:  # It has dozens of kinds, some of them of other libraries.
        reason = ' '.join(str(error).split())[:200]
        raise UserError(
            f'--source={source} is no folder, and could not be fetched from the hub ({reason}); '
            'put config.json, model.safetensors and the tokenizer into a folder and name that'
        ) from None


def _weights(folder: Path) -> hf_gpt2.Arrays:
    files = sorted(folder.glob('*.safetensors'))
    if not files:
        pickled = sorted([*folder.glob('*.bin'), *folder.glob('*.pt'), *folder.glob('*.pth')])
        if pickled:
            raise UserError(
                f'{pickled[0]} is a pickle, which can run any code, and is not read; convert it '
                f'with transformers: AutoModelForCausalLM.from_pretrained({str(folder)!r})'
                f'.save_pretrained({str(folder)!r}, safe_serialization=True)'
            )
        raise UserError(f'{folder} has no *.safetensors; give the folder of a GPT-2')
    extras.need('safetensors', 'hf')
    from safetensors.flax import load_file  # numpy's has no bfloat16.

    arrays: hf_gpt2.Arrays = {}
    for path in files:
        try:
            arrays |= {name: np.asarray(array) for name, array in load_file(path).items()}
        except Exception as error:
            raise UserError(f'{path} cannot be read ({error}); get it again') from None
    return arrays
