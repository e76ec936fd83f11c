"""How an answer is sent: whole or as events, and not at all once its client has gone."""

import asyncio
import contextlib
import json
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gptjax.serve.completions import Answer
from gptjax.serve.guard import json_response
from gptjax.serve.refusals import ANSWER_S, as_response

SEND_S = 30.0  # for one event, after which a client that reads nothing is left
Opens = Callable[[], contextlib.AbstractContextManager[Answer]]


class Completions(Response):
    """Sends an answer, and ends it as soon as the client has gone."""

    def __init__(self, opens: Opens, *, streams: bool) -> None:
        """`opens` begins the answer; leaving its context ends it."""
        self._opens, self._streams = opens, streams
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer."""
        with self._opens() as answer:
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
            response = as_response(error)
        await response(scope, receive, send)

    async def _stream(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        headers = [(b'content-type', b'text/event-stream; charset=utf-8')]
        await send({'type': 'http.response.start', 'status': 200, 'headers': headers})

        async def event(data: str, *, more: bool = True) -> None:
            body = f'data: {data}\n\n'.encode()
            try:
                async with asyncio.timeout(SEND_S):
                    await send({'type': 'http.response.body', 'body': body, 'more_body': more})
            except TimeoutError:
                raise ConnectionError from None

        last = '[DONE]'
        try:
            async with asyncio.timeout(ANSWER_S):
                async for found in answer.events():
                    await event(json.dumps(found, allow_nan=False))
        except ConnectionError:  # The client reads nothing: the connection is closed.
            return
        except Exception as error:
            last = bytes(as_response(error).body).decode()
        with contextlib.suppress(ConnectionError):
            await event(last, more=False)


async def _until_gone(receive: Receive) -> None:
    while (await receive())['type'] != 'http.disconnect':
        pass
