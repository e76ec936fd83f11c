"""The endpoints of the server."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gptjax.errors import UserError
from gptjax.run import Run
from gptjax.serve import fields, playground
from gptjax.serve.completions import Answer, as_text
from gptjax.serve.fields import Completion, FieldError
from gptjax.serve.guard import Guard, error_response, json_response
from gptjax.serve.metrics import Metrics
from gptjax.serve.models import Prompt, Served
from gptjax.serve.registry import Registry
from gptjax.serve.worker import Worker

MOST_BODY = 1_000_000  # bytes
MOST_TEXTS = 512  # of all requests, generated or waiting
BODY_S, ANSWER_S, SEND_S = 30.0, 600.0, 30.0  # time limits
REFRESH_S = 5.0  # between two looks for a better checkpoint


class Server:
    """The state of a server, and its endpoints."""

    def __init__(self, runs: Sequence[Run], slots: int, ready: Callable[[], None]) -> None:
        """`ready` is called when requests are answered."""
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
            Route('/v1/completions', self.completions, methods=['POST']),
            Route('/v1/models', self.models),
            Route('/v1/models/{name:path}', self.model),
            Route('/tokenize', self.tokenize, methods=['POST']),
            Route('/healthz', self.healthz),
            Route('/metrics', self.metrics),
        ]
        handlers = {HTTPException: _http_error, FieldError: _field_error, Exception: _failure}
        app = Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)
        return Guard(app, hosts=hosts, token=token, origin=origin)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        background = asyncio.create_task(self._start())
        yield
        background.cancel()

    async def _start(self) -> None:
        self._worker = Worker(asyncio.get_running_loop())
        registry = Registry(self._runs, self._worker, self._slots)
        await registry.warm_up()
        self._registry = registry
        gauge = self._metrics.gauge
        gauge('slots', 'Texts that can be generated at a time', lambda: self._slots)
        gauge('slots_busy', 'Slots in use', lambda: _total(registry, 'active'))
        gauge('queue', 'Texts without a slot', lambda: _total(registry, 'waiting'))
        gauge('live', 'Texts of requests that are answered now', lambda: self._texts)
        self._ready()
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
        completion = fields.parse(await _body(request))
        served = await self._served(completion.fields.model)
        prompts = served.check(completion)
        texts = len(prompts) * completion.drawn
        if self._texts + texts > MOST_TEXTS:
            busy = f'{self._texts} texts are being generated, and there may be {MOST_TEXTS}'
            raise HTTPException(429, f'{busy}; try again', {'Retry-After': '1'})
        return _Completions(self, completion, served, prompts)

    @contextlib.contextmanager
    def answer(
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
        served = await self._served(request.path_params['name'])
        return json_response(_describe(served.name))

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize: the tokens of a text, {"prompt": "...", "model": "..."}."""
        values = fields.parse_json(await _body(request))
        for name in values:
            if name not in ('prompt', 'model'):
                raise FieldError(f'{name} is unknown; there are prompt and model', name)
        text = fields.text(values.get('prompt'), 'prompt')
        served = await self._served(fields.text(values.get('model') or '', 'model'))
        tokenizer = served.run.task.tokenizer
        try:
            ids = tokenizer.encode(text).tolist()
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
        return json_response(playground.describe(self._models))

    async def explain(self, request: Request) -> Response:
        """GET /explain?model=NAME&text=TEXT: the page of --mode=explain."""
        if request.headers.get('sec-fetch-site', 'none') not in ('none', 'same-origin'):
            raise HTTPException(403, 'pages of others may not ask for explanations')
        asked = request.query_params
        served = await self._served(asked.get('model', ''))
        texts = [asked['text']] if asked.get('text') else []
        async with self._explaining:  # One at a time, since each takes seconds of computation.
            try:
                found = await asyncio.to_thread(served.run.explain, *texts, live=False)
            except UserError as error:
                raise FieldError(str(error), 'text') from None
        page = found.to_html().encode('utf-8', 'replace')
        return Response(page, media_type='text/html')

    async def healthz(self, request: Request) -> Response:
        """GET /healthz: 503 until requests are answered, and when the server ends."""
        del request
        status = 'loading' if self._registry is None else 'draining' if self.draining else 'ok'
        return json_response({'status': status}, 200 if status == 'ok' else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics, in Prometheus' format."""
        del request
        return Response(self._metrics.text(), media_type='text/plain; version=0.0.4')


class _Completions(Response):
    """Sends an answer, and ends it as soon as the client has gone."""

    def __init__(
        self, server: Server, completion: Completion, served: Served, prompts: list[Prompt]
    ) -> None:
        self._server, self._asked = server, (completion, served, prompts)
        self._streams = completion.fields.stream
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._server.answer(*self._asked) as answer:
            sending = self._stream if self._streams else self._whole
            work = asyncio.create_task(sending(answer, scope, receive, send))
            gone = asyncio.create_task(_until_gone(receive))
            try:
                await asyncio.wait({work, gone}, return_when='FIRST_COMPLETED')
                if work.done():
                    work.result()
            finally:
                work.cancel()
                gone.cancel()

    async def _whole(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                response = json_response(await answer.whole())
        except Exception as error:
            response = _as_response(error)
        await response(scope, receive, send)

    async def _stream(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        headers = [(b'content-type', b'text/event-stream; charset=utf-8')]
        await send({'type': 'http.response.start', 'status': 200, 'headers': headers})

        async def event(data: str, *, more: bool = True) -> None:
            body = f'data: {data}\n\n'.encode()
            async with asyncio.timeout(SEND_S):  # A client that reads nothing is left.
                await send({'type': 'http.response.body', 'body': body, 'more_body': more})

        try:
            async with asyncio.timeout(ANSWER_S):
                async for found in answer.events():
                    await event(json.dumps(found, allow_nan=False))
        except Exception as error:
            await event(bytes(_as_response(error).body).decode(), more=False)
            return
        await event('[DONE]', more=False)


async def _until_gone(receive: Receive) -> None:
    while (await receive())['type'] != 'http.disconnect':
        pass


async def _body(request: Request) -> bytes:
    """The body of a request, which must be JSON of a bounded size."""
    kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
    if kind != 'application/json':
        raise HTTPException(415, 'content-type must be application/json')
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > MOST_BODY:
                    raise HTTPException(413, f'the body has more than {MOST_BODY:,} bytes')
    except TimeoutError:
        raise HTTPException(408, f'the body took longer than {BODY_S:.0f} s') from None
    except ClientDisconnect:
        raise HTTPException(400, 'the body was cut short') from None
    return b''.join(chunks)


def _describe(name: str) -> dict[str, object]:
    return {'id': name, 'object': 'model', 'created': 0, 'owned_by': 'gptjax'}


def _total(registry: Registry, name: str) -> int:
    return sum(getattr(served.source, name) for served in registry.loaded)


def _as_response(error: Exception) -> Response:
    if isinstance(error, FieldError):
        code = 'model_not_found' if error.status == 404 else None
        return error_response(error.status, str(error), field=error.field, code=code)
    if isinstance(error, TimeoutError):
        return error_response(503, f'the answer took longer than {ANSWER_S:.0f} s')
    if isinstance(error, UserError):
        return error_response(400, str(error))
    return error_response(500, 'the model failed; the log of the server has the reason')


async def _field_error(_: Request, error: Exception) -> Response:
    return _as_response(error)


async def _failure(_: Request, error: Exception) -> Response:
    return _as_response(error)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {name.replace('-', '_'): value for name, value in (error.headers or {}).items()}
    return error_response(error.status_code, error.detail, **headers)
