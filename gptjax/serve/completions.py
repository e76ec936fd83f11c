"""Answers of /v1/completions: one JSON object, or events as the text comes."""

import asyncio
import codecs
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from gptjax.generation.requests import Piece
from gptjax.serve.fields import Completion
from gptjax.serve.metrics import Metrics
from gptjax.serve.models import Prompt, Served
from gptjax.serve.worker import Job, Worker

Scored = tuple[int, float | None, tuple[tuple[int, float], ...]]  # token, its score, the likeliest

NAMES = ('tokens', 'token_logprobs', 'top_logprobs', 'text_offset', 'token_ids', 'top_ids')


class Choice:
    """A text of an answer as it grows."""

    def __init__(self, served: Served, prompt: Prompt, most: int) -> None:
        """`most` of the likeliest tokens are told."""
        self.finish: str | None = None
        self.tokens, self.score = 0, 0.0
        self._served, self._most = served, most
        self._after = prompt.ids[-1] if prompt.ids else None
        self._offset = self._said = 0  # characters of all tokens, and of the text that was told
        self._held: list[dict[str, Any]] = []  # tokens of text that is held back
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')

    def add(self, piece: Piece) -> tuple[str, dict[str, Any] | None]:
        """What a piece adds: its text, and the log-probabilities of its tokens."""
        self.finish = piece.finish
        self.tokens += len(piece.tokens)
        self.score += sum(piece.scores or ())
        self._said += len(piece.text)
        if piece.scores is None or self._most < 0:
            return piece.text, None
        self._hold(list(zip(piece.tokens, piece.scores, piece.likeliest, strict=True)))
        # The tokens of a stop string, and of what may become one, are no part of the text.
        whole = self.finish == 'length'
        told = [token for token in self._held if whole or token['text_offset'] < self._said]
        self._held = self._held[len(told) :]
        return piece.text, _logprobs(told)

    def echo(self, text: str, scored: list[Scored] | None) -> tuple[str, dict[str, Any] | None]:
        """As `add`, for the prompt."""
        if scored is None:
            self._offset = self._said = len(text)
            return text, None
        self._after = None
        self._hold(scored)
        # The prompt is sent as it came; its tokens may be of a cleaned form.
        self._offset = self._said = len(text)
        self._decoder.reset()
        told, self._held = self._held, []
        return text, _logprobs(told)

    def _hold(self, scored: list[Scored]) -> None:
        """Describes tokens; ids are beside the texts, which may coincide."""
        for token, score, likeliest in scored:
            text = self._served.token_texts([token], self._after)[0]
            self._held.append(
                {
                    'tokens': as_text(text),
                    'token_logprobs': score,
                    'top_logprobs': self._likeliest((token, score, likeliest)),
                    'text_offset': self._offset,
                    'token_ids': token,
                    'top_ids': [other for other, _ in likeliest[: self._most]],
                }
            )
            self._offset += len(self._decoder.decode(text))
            self._after = token

    def _likeliest(self, scored: Scored) -> dict[str, float] | None:
        token, score, likeliest = scored
        if score is None:
            return None
        told = dict(likeliest[: self._most])
        told.setdefault(token, score)  # As OpenAI does: the token itself is always there.
        found: dict[str, float] = {}
        for other, its_score in told.items():
            found.setdefault(as_text(self._served.token_texts([other], self._after)[0]), its_score)
        return found


def as_text(token: bytes) -> str:
    """A token's text or, for a part of a character, OpenAI's name of its bytes."""
    try:
        return token.decode('utf-8')
    except UnicodeDecodeError:
        return 'bytes:' + ''.join(f'\\x{byte:02x}' for byte in token)


class Answer:
    """The answer to a request, which is told to the worker at once."""

    def __init__(
        self,
        completion: Completion,
        served: Served,
        prompts: list[Prompt],
        *,
        worker: Worker,
        metrics: Metrics,
    ) -> None:
        """Queues the texts; `close` has to be called in any case."""
        self._completion, self._served, self._prompts = completion, served, prompts
        self._worker, self._metrics = worker, metrics
        self._start = time.monotonic()
        self._job = Job(served)
        most = completion.fields.logprobs
        self._choices = [
            Choice(served, prompt, most) for prompt in prompts for _ in range(completion.drawn)
        ]
        self._head = {
            'id': f'cmpl-{secrets.token_hex(12)}',
            'object': 'text_completion',
            'created': int(time.time()),
            'model': served.name,
            'system_fingerprint': served.fingerprint,
            'seed': completion.seed,
        }
        if completion.fields.max_tokens:
            worker.start(self._job, prompts, completion)

    def close(self) -> None:
        """Frees the slots of texts that are not finished."""
        self._worker.cancel(self._job)

    async def whole(self) -> dict[str, Any]:
        """The JSON object."""
        logs: list[list[dict[str, Any]]] = [[] for _ in self._choices]
        texts = [''] * len(self._choices)
        async for index, text, logprobs in self._pieces():
            texts[index] += text
            if logprobs:
                logs[index].append(logprobs)
        chosen: list[int] = []
        drawn, n = self._completion.drawn, self._completion.fields.n
        for first in range(0, len(self._choices), drawn):
            rows = sorted(range(first, first + drawn), key=self._mean_score) if n < drawn else ()
            chosen += sorted(rows[:n]) if rows else range(first, first + drawn)
        choices = [
            self._as_choice(number, texts[i], _joined(logs[i]), self._choices[i].finish)
            for number, i in enumerate(chosen)
        ]
        return {**self._head, 'choices': choices, 'usage': self._usage()}

    def _mean_score(self, index: int) -> float:
        choice = self._choices[index]
        return -choice.score / max(choice.tokens, 1)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The JSON objects of a stream."""
        usage = {'usage': None} if self._completion.include_usage else {}
        async for index, text, logprobs in self._pieces():
            finish = self._choices[index].finish
            if text or logprobs or finish:
                choice = self._as_choice(index, text, logprobs, finish)
                yield {**self._head, 'choices': [choice], **usage}
        if usage:
            yield {**self._head, 'choices': [], 'usage': self._usage()}

    async def _pieces(self) -> AsyncIterator[tuple[int, str, dict[str, Any] | None]]:
        """(number of the text, what is new of it, log-probabilities) as they come."""
        if self._completion.fields.echo:
            scored = {prompt: await self._scored(prompt) for prompt in self._prompts}
            for index, choice in enumerate(self._choices):
                prompt = self._prompts[index // self._completion.drawn]
                if not self._completion.fields.max_tokens:
                    choice.finish = 'length'
                yield index, *choice.echo(prompt.text, scored[prompt])
        left = len(self._choices) if self._completion.fields.max_tokens else 0
        last = self._start
        while left:
            index, news = await self._job.events.get()
            if isinstance(news, Exception):
                raise news
            now = time.monotonic()
            if index == 0:
                first = self._choices[0].tokens == 0
                self._metrics.piece(now - last, len(news.tokens), first=first)
                last = now
            text, logprobs = self._choices[index].add(news)
            left -= bool(news.finish)
            self._metrics.tokens.inc(len(news.tokens))
            yield index, text, logprobs

    async def _scored(self, prompt: Prompt) -> list[Scored] | None:
        if self._completion.fields.logprobs < 0:
            return None
        if not prompt.text:  # What stands for it before the text is no part of it.
            return []
        loop, score = asyncio.get_running_loop(), self._served.score
        scores, likeliest = await loop.run_in_executor(self._worker.scoring, score, prompt.ids)
        return list(zip(prompt.ids, [None, *scores], [(), *likeliest], strict=True))

    def _as_choice(
        self, index: int, text: str, logprobs: dict[str, Any] | None, finish: str | None
    ) -> dict[str, Any]:
        return {'text': text, 'index': index, 'logprobs': logprobs, 'finish_reason': finish}

    def _usage(self) -> dict[str, int]:
        prompt = sum(len(prompt.ids) for prompt in self._prompts)
        new = sum(choice.tokens for choice in self._choices)
        return {
            'prompt_tokens': prompt,
            'completion_tokens': new,
            'total_tokens': prompt + new,
        }


def _logprobs(tokens: list[dict[str, Any]]) -> dict[str, Any]:
    """OpenAI's object: a list of each."""
    return {name: [token[name] for token in tokens] for name in NAMES}


def _joined(logs: list[dict[str, Any]]) -> dict[str, Any] | None:
    return {name: [x for log in logs for x in log[name]] for name in NAMES} if logs else None
