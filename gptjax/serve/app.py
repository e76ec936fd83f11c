"""The endpoints of the server."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gptjax.errors import UserError
from gptjax.run import Run
from gptjax.serve import fields, looks, playground
from gptjax.serve.completions import Answer, as_text
from gptjax.serve.fields import Completion, FieldError
from gptjax.serve.guard import Guard, json_response
from gptjax.serve.metrics import Metrics
from gptjax.serve.models import Prompt, Served
from gptjax.serve.refusals import failure, http_error, read_body
from gptjax.serve.registry import Registry
from gptjax.serve.sending import Completions
from gptjax.serve.worker import Worker
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.text.clean import clean

MOST_TEXTS = 512  # of all requests, generated or waiting
REFRESH_S = 5.0  # between two looks for a better checkpoint


class Server:
    """The state of a server, and its endpoints."""

    def __init__(
        self, runs: Sequence[Run], slots: int, ready: Callable[[Exception | None], None]
    ) -> None:
        """`ready` is called when requests are answered, or with why they cannot be."""
        self._runs, self._slots, self._ready = runs, slots, ready
        self._metrics = Metrics()
        self._registry: Registry | None = None
        self._texts = 0
        self._explaining = asyncio.Lock()
        self.draining = False

    def app(self, *, hosts: frozenset[str], token: str, origin: str) -> ASGIApp:
        """The ASGI application."""
        routes = [
            Route('/', self.page),
            Route('/favicon.ico', self.icon),
            Route('/playground', self.playground),
            Route('/explain', self.explain),
            Route('/look', self.look, methods=['POST']),
            Route('/v1/completions', self.completions, methods=['POST']),
            Route('/v1/models', self.models),
            Route('/v1/models/{name:path}', self.model),
            Route('/tokenize', self.tokenize, methods=['POST']),
            Route('/detokenize', self.detokenize, methods=['POST']),
            Route('/tokenizer_info', self.tokenizer_info),
            Route('/healthz', self.healthz),
            Route('/metrics', self.metrics),
        ]
        handlers = {HTTPException: http_error, FieldError: failure, Exception: failure}
        app = Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)
        app.router.redirect_slashes = False
        count = self._metrics.count
        return Guard(app, hosts=hosts, token=token, origin=origin, count=count)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        background = asyncio.create_task(self._start())
        yield
        background.cancel()

    async def _start(self) -> None:
        self._worker = Worker(asyncio.get_running_loop())
        try:
            registry = Registry(self._runs, self._worker, self._slots)
            await registry.warm_up()
        except Exception as error:
            self._ready(error)
            return
        self._registry = registry
        gauge = self._metrics.gauge
        gauge('slots', 'Texts that can be generated at a time', lambda: self._slots)
        gauge('slots_busy', 'Slots in use', lambda: _total(registry, 'active'))
        gauge('queue', 'Texts without a slot', lambda: _total(registry, 'waiting'))
        gauge('live', 'Texts of requests that are answered now', lambda: self._texts)
        self._ready(None)
        while True:
            await asyncio.sleep(REFRESH_S)
            await registry.refresh()

    @property
    def _models(self) -> Registry:
        if self._registry is None:
            raise HTTPException(503, 'the model is being loaded', {'Retry-After': '1'})
        return self._registry

    async def _served(self, name: str) -> Served:
        found = await self._models.get(name)
        if found is None:
            names = ', '.join(self._models.names())
            raise FieldError(f'there is no model {name[:80]!r}; there are {names}', 'model', 404)
        return found

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        completion = fields.parse(await read_body(request))
        served = await self._served(completion.fields.model)
        # In another thread, since a prompt of a megabyte takes some time.
        prompts = await asyncio.to_thread(served.check, completion)
        texts = len(prompts) * completion.drawn
        if self._texts + texts > MOST_TEXTS:
            busy = f'{self._texts} texts are being generated, and there may be {MOST_TEXTS}'
            raise HTTPException(429, f'{busy}; try again', {'Retry-After': '1'})
        opens = functools.partial(self._answer, completion, served, prompts)
        return Completions(opens, streams=completion.fields.stream)

    @contextlib.contextmanager
    def _answer(
        self, completion: Completion, served: Served, prompts: list[Prompt]
    ) -> Iterator[Answer]:
        """An answer, whose slots are freed in any case."""
        texts = len(prompts) * completion.drawn
        self._texts += texts
        answer = Answer(completion, served, prompts, worker=self._worker, metrics=self._metrics)
        try:
            yield answer
        finally:
            answer.close()
            self._texts -= texts

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        del request
        data = [_describe(name) for name in self._models.names()]
        return json_response({'object': 'list', 'data': data})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        name = request.path_params['name']
        if not name:
            raise HTTPException(404, 'Not Found')
        served = await self._served(name)
        return json_response(_describe(served.name))

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize: the tokens of a text, {"prompt": "...", "model": "..."}."""
        values = await self._values(request, 'prompt', 'model', 'add_special_tokens')
        if values.get('add_special_tokens'):
            raise FieldError(
                'add_special_tokens=true is not supported; leave it out', 'add_special_tokens'
            )
        text = fields.text(values.get('prompt'), 'prompt')
        served = await self._served(_model_name(values))
        tokenizer, text = served.run.task.tokenizer, clean(text, served.run.config.data)
        try:
            await asyncio.to_thread(tokenizer.check, text)
            ids = (await asyncio.to_thread(tokenizer.encode, text)).tolist()
        except UserError as error:
            raise FieldError(str(error), 'prompt') from None
        return json_response(
            {
                'count': len(ids),
                'max_model_len': served.run.config.model.block_size,
                'tokens': ids,
                'token_strs': [as_text(token) for token in served.token_texts(ids)],
            }
        )

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize: the text of token ids, {"tokens": [...], "model": "..."}."""
        values = await self._values(request, 'tokens', 'model')
        served = await self._served(_model_name(values))
        tokenizer, ids = served.run.task.tokenizer, values.get('tokens')
        if not isinstance(ids, list) or not all(type(i) is int for i in ids):
            raise FieldError('tokens must be a list of token ids', 'tokens')
        if ids and not 0 <= min(ids) <= max(ids) < tokenizer.vocab_size:
            raise FieldError(f'token ids are 0 to {tokenizer.vocab_size - 1}', 'tokens')
        return json_response({'prompt': tokenizer.decode(ids)})

    async def tokenizer_info(self, request: Request) -> Response:
        """GET /tokenizer_info: what evaluation suites ask before they use /tokenize."""
        del request
        tokenizer = (await self._served('')).run.task.tokenizer
        end = None if tokenizer.end is None else tokenizer.decode([tokenizer.end])
        found = {'tokenizer_class': tokenizer.kind, 'vocab_size': tokenizer.vocab_size}
        return json_response({**found, 'eos_token': end, 'bos_token': None, 'pad_token': None})

    async def _values(self, request: Request, *known: str) -> dict[str, Any]:
        """The fields of a body, all of them known."""
        values = fields.parse_json(await read_body(request))
        for name in values:
            if name not in known:
                raise FieldError(f'{name[:80]} is unknown; there are {", ".join(known)}', name[:80])
        return values

    async def page(self, request: Request) -> Response:
        """GET /: the playground."""
        del request
        return Response(playground.page(), media_type='text/html')

    async def icon(self, request: Request) -> Response:
        """GET /favicon.ico: none, which browsers ask for all the same."""
        del request
        return Response(status_code=204)

    async def playground(self, request: Request) -> Response:
        """GET /playground: what its page shows of the models."""
        del request
        return json_response(await asyncio.to_thread(playground.describe, self._models))

    async def explain(self, request: Request) -> Response:
        """GET /explain?model=NAME&text=TEXT: the page of --mode=explain."""
        if request.headers.get('sec-fetch-site', 'none') not in ('none', 'same-origin'):
            raise HTTPException(403, 'pages of others may not ask for explanations')
        asked = request.query_params
        served = await self._served(asked.get('model', ''))
        texts = [asked['text']] if asked.get('text') else []
        found = await self._explained(served.run.explain, *texts, live=False)
        page = found.to_html().encode('utf-8', 'replace')
        return Response(page, media_type='text/html')

    async def look(self, request: Request) -> Response:
        """POST /look: what the playground draws of a translation or of a sentence of the GAN."""
        values = await self._values(request, 'prompt', 'text', 'model', 'seed', 'temperature')
        served = await self._served(_model_name(values))
        if isinstance(served.run.task, LanguageModel):
            raise FieldError(f'{served.name} is a language model; GET /explain shows it', 'model')
        given = [fields.text(values[name], name) for name in ('prompt', 'text') if name in values]
        knobs = {name: values[name] for name in ('seed', 'temperature') if name in values}
        return json_response(await self._explained(looks.look, served.run, given, knobs))

    async def _explained(self, explain: Callable[..., Any], *args: Any, **knobs: Any) -> Any:
        async with self._explaining:  # One at a time, since each takes seconds of computation.
            try:
                return await asyncio.to_thread(explain, *args, **knobs)
            except UserError as error:
                raise FieldError(str(error), 'text') from None

    async def healthz(self, request: Request) -> Response:
        """GET /healthz: 503 until requests are answered, and when the server ends."""
        del request
        status = 'loading' if self._registry is None else 'draining' if self.draining else 'ok'
        return json_response({'status': status}, 200 if status == 'ok' else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics, in Prometheus' format."""
        del request
        return Response(self._metrics.text(), media_type='text/plain; version=0.0.4')


def _model_name(values: dict[str, Any]) -> str:
    name = values.get('model')
    return '' if name is None else fields.text(name, 'model')


def _describe(name: str) -> dict[str, object]:
    return {'id': name, 'object': 'model', 'created': 0, 'owned_by': 'gptjax'}


def _total(registry: Registry, name: str) -> int:
    return sum(getattr(served.source, name) for served in registry.loaded)
