"""What every request has to pass: host, origin, token; and the headers of every answer."""

import hmac
import json
from collections.abc import Callable
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'referrer-policy': 'no-referrer',
    'cross-origin-resource-policy': 'same-origin',
    'cache-control': 'no-store',
}
OPEN = ('/healthz', '/', '/favicon.ico')  # paths that need no token; the page has no secrets


def error_response(
    status: int, message: str, *, field: str | None = None, code: str | None = None, **headers: str
) -> Response:
    """OpenAI's error object."""
    kind = 'invalid_request_error' if status < 500 else 'server_error'
    error = {'message': message, 'type': kind, 'param': field, 'code': code}
    named = {name.replace('_', '-'): value for name, value in headers.items()}
    return json_response({'error': error}, status, named)


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """JSON without NaN, in ASCII."""
    body = json.dumps(content, allow_nan=False)
    return Response(body, status, headers, media_type='application/json')


class Guard:
    """ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: frozenset[str],
        token: str,
        origin: str,
        count: Callable[[int], None],
    ) -> None:
        """`hosts` are the names by which the server may be called, without a port.

        With a `token` requests need it; `origin`, if any, is the other one whose pages may call.
        `count` is told the status of each answer.
        """
        self._app, self._hosts, self._token = app, hosts, token.encode()
        self._origin, self._count = origin, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers or passes the request on."""
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return
        sent = {key.decode('latin-1'): value.decode('latin-1') for key, value in scope['headers']}
        origin = sent.get('origin', '')
        extra = dict(HEADERS)
        if origin and origin == self._origin:
            extra |= {'access-control-allow-origin': origin, 'vary': 'origin'}
            extra |= {'access-control-allow-headers': 'authorization, content-type'}
            extra['cross-origin-resource-policy'] = 'cross-origin'

        async def with_headers(message: Message) -> None:
            if message['type'] == 'http.response.start':
                self._count(message['status'])
                had = {key for key, _ in message['headers']}
                added = ((k.encode(), v.encode()) for k, v in extra.items())
                message['headers'] = [*message['headers'], *(x for x in added if x[0] not in had)]
            await send(message)

        refused = self._refuse(scope, sent, origin)
        if refused is None and scope['method'] == 'OPTIONS' and origin == self._origin != '':
            refused = Response(status_code=204)
        await (refused or self._app)(scope, receive, with_headers)

    def _refuse(self, scope: Scope, sent: dict[str, str], origin: str) -> Response | None:
        host = sent.get('host', '')
        if self._hosts and _name(host) not in self._hosts:
            return error_response(403, f'this server does not answer for the host {host[:80]!r}')
        if origin not in ('', self._origin, f'http://{host}', f'https://{host}'):
            return error_response(403, f'pages of {origin[:80]!r} may not call this server')
        if self._token and scope['path'] not in OPEN and scope['method'] != 'OPTIONS':
            scheme, _, given = sent.get('authorization', '').partition(' ')
            same = hmac.compare_digest(given.encode('latin-1'), self._token)
            if scheme.lower() != 'bearer' or not same:
                return error_response(
                    401,
                    'the token is missing or wrong; send Authorization: Bearer TOKEN',
                    www_authenticate='Bearer',
                )
        return None


def _name(host: str) -> str:
    """The host of a Host header, without its port, in small letters."""
    name, colon, port = host.rpartition(':')
    return (name if colon and (port.isdecimal() or not port) else host).lower()
