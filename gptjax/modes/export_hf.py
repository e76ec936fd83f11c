"""--mode=export: a trained model as a folder that `transformers` loads."""

import json
from pathlib import Path

import jax
import numpy as np

from gptjax import extras
from gptjax.console import say
from gptjax.errors import UserError
from gptjax.files import write_atomically
from gptjax.interop import hf_gpt2, hf_tokenizer
from gptjax.modes.request import Request, open_run
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.training.checkpoint import flat_leaves


def run(request: Request) -> int:
    """Writes config.json, model.safetensors and, where there is a form for it, the tokenizer."""
    if not request.target:
        raise UserError('--mode=export needs --target=DIR')
    target = Path(request.target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f'--target={target} is there already and not empty; name a new folder')
    trained = open_run(request)
    task = trained.task
    if not isinstance(task, LanguageModel):
        raise UserError(
            f'GPT-2 cannot express task={task.config.task}; only a language model can be exported'
        )
    has_form = write(task, task.variables(trained.params)['params'], target)
    say(f'Exported step {trained.step} of {request.workdir} to {target}. In Python:')
    say(f'  transformers.AutoModelForCausalLM.from_pretrained({str(target)!r})')
    if not has_form:
        kind = task.tokenizer.kind
        say(f'Hugging Face has no form for a {kind} tokenizer: only the model is there.')
    return 0


def write(task: LanguageModel, params: dict, target: Path) -> bool:
    """Writes a model to a folder, and its tokenizer if there is a form for it; returns whether.

    Raises:
      UserError: GPT-2 cannot express the model, or safetensors is not installed.
    """
    extras.need('safetensors', 'hf')
    from safetensors.numpy import save

    model, tokenizer = task.model, task.tokenizer
    theirs = hf_gpt2.config_to_theirs(model.config, model.vocab_size, tokenizer.end)
    leaves = flat_leaves(jax.device_get(params))
    ours = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    arrays = hf_gpt2.to_theirs(ours, model.config, model.vocab_size)
    write_atomically(target / 'config.json', (json.dumps(theirs, indent=2) + '\n').encode())
    # transformers wants to know that the arrays are PyTorch's in shape and order.
    write_atomically(target / 'model.safetensors', save(arrays, {'format': 'pt'}))
    return hf_tokenizer.write(tokenizer, target)
