"""--mode=serve: a playground in the browser and OpenAI's completions, for trained models."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from gptjax import extras
from gptjax.console import say
from gptjax.errors import UserError
from gptjax.modes.request import Request, ServeFlags, open_run
from gptjax.run import Run

LOCAL = frozenset({'localhost', '127.0.0.1', '[::1]'})


def run(request: Request) -> int:
    """Serves until Ctrl-C or SIGTERM; then ends what has begun, and at once at the second one."""
    uvicorn = extras.need('uvicorn', 'serve')
    extras.need('starlette', 'serve')
    from gptjax.serve.app import Server

    serve = request.serve
    is_local = serve.host in ('localhost', '127.0.0.1', '::1')
    token = _check(serve, is_local)
    runs = [open_run(request), *(Run.open(path) for path in request.against)]
    sock = _listen(serve.host, serve.port)
    host, port = sock.getsockname()[:2]
    url = f'http://{f"[{host}]" if ":" in host else host}:{port}'
    names = ' and '.join(str(path) for path in (request.workdir, *map(Path, request.against)))
    failures, signals = list[Exception](), list[int]()

    def ready(failure: Exception | None) -> None:
        if failure:
            failures.append(failure)
            listening.should_exit = True
        else:
            say(f'Serving {names} at {url}')

    server = Server(runs, serve.slots, ready)
    hosts = LOCAL if is_local else frozenset()
    app = server.app(hosts=hosts, token=token, origin=serve.allow_origin)

    class Uvicorn(uvicorn.Server):  # type: ignore[misc, name-defined]
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # Ours are caught until the process has ended.

    def end(number: int, _: FrameType | None) -> None:
        if signals:
            os._exit(128 + number)
        signals.append(number)
        server.draining = listening.should_exit = True
        name = signal.Signals(number).name
        say(f'{name}: finishing the texts in progress; once more stops at once')

    # What it would log we print, or tell the client.
    logging.getLogger('uvicorn.error').setLevel(logging.CRITICAL)
    how = {'log_config': None, 'access_log': False, 'server_header': False}
    config = uvicorn.Config(app, **how, limit_concurrency=1000)
    listening = Uvicorn(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(listening.serve(sockets=[sock]))
    if failures:
        raise failures[0]
    # The thread that generates may be inside XLA, which does not survive the interpreter's end.
    os._exit(128 + signals[0] if signals else 1)


def _check(serve: ServeFlags, is_local: bool) -> str:
    """The token, if there is one; raises UserError for flags that do not go together."""
    if not 1 <= serve.slots <= 1024:
        raise UserError(f'--slots={serve.slots} must be 1 to 1024; set it accordingly')
    if not re.fullmatch(r'(https?://[^/\s]+)?', serve.allow_origin):
        raise UserError(
            f'--allow_origin={serve.allow_origin} must be an origin like https://example.org'
        )
    token = _token(serve.token_file)
    if not is_local and not token:
        raise UserError(
            f'--host={serve.host} can be reached from other machines and needs a token; '
            'give one with --token_file=FILE'
        )
    return token


def _token(path: str) -> str:
    if not path:
        return ''
    try:
        token = Path(path).read_text(encoding='ascii').strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'--token_file={path} cannot be read ({error})') from None
    if token.split() != [token]:
        raise UserError(f'--token_file={path} must have one word; write the token alone into it')
    if len(token) < 16:
        raise UserError(f'the token in {path} has {len(token)} characters and must have 16 or more')
    return token


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises UserError if it cannot."""
    if not 0 <= port <= 65535:
        raise UserError(f'--port={port} must be 0 to 65535; 0 picks a free one')
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        *kind, _, address = found[0]
        # Without the protocol asyncio leaves Nagle's algorithm on: 40 ms to the first token.
        sock = socket.socket(*kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        raise UserError(
            f'--host={host} --port={port}: {error.strerror}; try another port'
        ) from None
    return sock
