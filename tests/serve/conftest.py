"""A server in this process, which several test modules ask."""

import contextlib
import threading
import time

import pytest

from gptjax.run import Run
from tests.conftest import unpack_golden

NAMES = ('char', 'translation', 'gan')


@contextlib.contextmanager
def serving(runs, slots=4, **guard):
    """The address of a server of these runs, with the application's `Server`, until the end."""
    import uvicorn

    from gptjax.modes.serve import LOCAL, _listen
    from gptjax.serve.app import Server

    ready = threading.Event()
    server = Server(runs, slots, lambda failure: ready.set())
    app = server.app(**{'hosts': LOCAL, 'token': '', 'origin': '', **guard})
    socket = _listen('127.0.0.1', 0)
    listening = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=listening.run, args=([socket],), daemon=True)
    thread.start()
    assert ready.wait(120)
    yield f'http://127.0.0.1:{socket.getsockname()[1]}', server
    listening.should_exit = listening.force_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope='session')
def home(tmp_path_factory):
    """A folder with the golden work directories."""
    return unpack_golden(tmp_path_factory.mktemp('served'), *NAMES)


@pytest.fixture(scope='session')
def runs(home):
    return [Run.open(home / name) for name in NAMES]


@pytest.fixture(scope='module')
def address(runs):
    """Of a server of all three tasks."""
    with serving(runs) as (address, _):
        yield address


@pytest.fixture
def metrics(address):
    """Reads the server's figures by their names."""
    import httpx

    def read() -> dict[str, float]:
        lines = httpx.get(f'{address}/metrics').text.splitlines()
        pairs = (line.rsplit(' ', 1) for line in lines if not line.startswith('#'))
        return {name: float(value) for name, value in pairs}

    return read


def soon(holds, seconds: float = 20.0) -> bool:
    """Whether something holds within some seconds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
