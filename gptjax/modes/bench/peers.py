"""Other programs that decode with a cache: each loads our export, in a process of its own.

See `gptjax.modes.bench.worker`; the job's mode names the peer.
"""

import abc
import importlib.util
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from gptjax.modes.bench import machine, worker
from gptjax.modes.bench.worker import Job

PACKAGES = {'huggingface': 'transformers', 'ctranslate2': 'ctranslate2'}


def installed() -> list[str]:
    """The peers that can be measured here; CTranslate2 converts what transformers has read."""
    found = {name: importlib.util.find_spec(name) for name in ('torch', *PACKAGES.values())}
    if not (found['torch'] and found['transformers']):
        return []
    return [name for name, package in PACKAGES.items() if found[package]]


class Peer(abc.ABC):
    """What a worker is asked for; a subclass continues one prompt in several rows."""

    def __init__(self, job: Job) -> None:
        """Loads the export."""
        self.prompt = [int(token) for token in job.prompt()]

    def generate(self, batch_size: int, tokens: int, texts: int, greedy: bool) -> float:
        """Seconds to continue the job's prompt, `texts` times one after the other."""
        began = time.perf_counter()
        for _ in range(texts):
            self.texts(batch_size, tokens, greedy)
        return time.perf_counter() - began

    def continuation(self, tokens: int) -> list[int]:
        """The likeliest tokens after the prompt."""
        return list(self.texts(1, tokens, True)[0])

    @abc.abstractmethod
    def texts(self, batch_size: int, tokens: int, greedy: bool) -> Sequence[Sequence[int]]:
        """New tokens of each row."""


class HuggingFace(Peer):
    """GPT-2 of `transformers`, in the compute type of the job."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        import torch
        import transformers

        self._torch, self._version = torch, transformers.__version__
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        dtype = getattr(torch, job.config.model.dtype)
        model = transformers.GPT2LMHeadModel.from_pretrained(job.exported, dtype=dtype)
        self._model: Any = model.eval().to(device)

    def texts(self, batch_size: int, tokens: int, greedy: bool) -> list[list[int]]:
        """See `Peer`."""
        torch = self._torch
        prompt_BT = torch.tensor([self.prompt] * batch_size, device=self._model.device)
        with torch.inference_mode():
            out_BT = self._model.generate(
                prompt_BT,
                attention_mask=torch.ones_like(prompt_BT),
                do_sample=not greedy,
                top_k=None if greedy else 0,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                pad_token_id=0,
            )
        return out_BT[:, len(self.prompt) :].tolist()

    def about(self) -> dict:
        """Version and memory."""
        return {'version': self._version, 'resident_bytes': machine.resident_bytes()}


class CTranslate2(Peer):
    """CTranslate2's generator in float32, on all cores for one batch."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        import ctranslate2
        from ctranslate2.converters import TransformersConverter

        folder = job.folder / 'ctranslate2'
        TransformersConverter(str(job.exported)).convert(str(folder))
        self._version = ctranslate2.__version__
        vocabulary = json.loads((folder / 'vocabulary.json').read_text())
        # A character model has no token of the end, and CTranslate2 no way to be without one.
        config = folder / 'config.json'
        about = json.loads(config.read_text())
        missing = [k for k, v in about.items() if v is None and k.endswith('_token')]
        config.write_text(json.dumps(about | dict.fromkeys(missing, vocabulary[-1])))
        self._words = [vocabulary[token] for token in self.prompt]
        cores = len(os.sched_getaffinity(0))
        self._generator = ctranslate2.Generator(
            str(folder), device='auto', compute_type='float32', intra_threads=cores
        )

    def texts(self, batch_size: int, tokens: int, greedy: bool) -> list[list[int]]:
        """See `Peer`."""
        results = self._generator.generate_batch(
            [self._words] * batch_size,
            sampling_topk=1 if greedy else 0,
            min_length=tokens,
            max_length=tokens,
            include_prompt_in_result=False,
            end_token=[],  # Otherwise it is kept from being drawn until min_length.
        )
        return [result.sequences_ids[0] for result in results]

    def about(self) -> dict:
        """Version and memory."""
        return {'version': self._version, 'resident_bytes': machine.resident_bytes()}


if __name__ == '__main__':
    PEERS = {'huggingface': HuggingFace, 'ctranslate2': CTranslate2}
    worker.serve(lambda job: PEERS[job.mode](job))
