"""--mode=serve as a command: flags, signals, and what it says."""

import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, one_line, optional, run_main
from tests.serve.conftest import soon

httpx = optional('httpx')
pytestmark = pytest.mark.serve

DRAINING = 'SIGTERM: finishing the texts in progress; once more stops at once'
CONFIGS = {'char': 'char.py', 'translation': 'translate.py:small', 'gan': 'gan.py:toy'}


def start(home, name='char', *flags):
    """A server in a process of its own, and its address when it answers."""
    command = [sys.executable, str(ROOT / 'main.py'), f'--config={ROOT}/configs/{CONFIGS[name]}']
    flags = (f'--workdir={home / name}', '--mode=serve', '--port=0', *flags)
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    found = re.fullmatch(r'Serving (.+) at (http://127\.0\.0\.1:\d+)\n', line)
    assert found, line + process.stderr.read()
    return process, found[2]


@pytest.mark.parametrize('name', CONFIGS)
def test_every_task_is_served(home, name):
    process, address = start(home, name)
    prompt = 'aba' if name == 'translation' else ''
    answer = httpx.post(
        f'{address}/v1/completions', json={'prompt': prompt, 'max_tokens': 4}, timeout=60
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains_and_the_second_ends(home, sig):
    process, address = start(home)
    body = {'prompt': 'To be', 'max_tokens': 3000, 'stream': True}
    with httpx.stream('POST', f'{address}/v1/completions', json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(sig)
        rest = [line for line in lines if line]
    assert rest[-1] == 'data: [DONE]'  # The text was ended.
    assert process.wait(20) == 128 + sig
    said = process.stderr.read()
    assert f'{sig.name}: finishing the texts in progress; once more stops at once' in said
    assert 'Traceback' not in said
    process, address = start(home)
    body |= {'max_tokens': 4000, 'n': 32}
    with httpx.stream('POST', f'{address}/v1/completions', json=body, timeout=60) as answer:
        next(answer.iter_lines())
        begin = time.monotonic()
        process.send_signal(sig)
        time.sleep(0.1)
        process.send_signal(sig)
        assert process.wait(20) == 128 + sig
        assert time.monotonic() - begin < 3
    assert 'Traceback' not in process.stderr.read()


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--host=0.0.0.0'], '--host=0.0.0.0 can be reached from other machines and needs a token'),
        (['--port=99999'], '--port=99999 must be 0 to 65535; 0 picks a free one'),
        (['--host=nowhere.invalid', '--token_file=token'], '--host=nowhere.invalid --port=8000: '),
        (['--token_file=missing'], '--token_file=missing cannot be read'),
        (['--allow_origin=*'], '--allow_origin=* must be an origin like https://example.org'),
        (['--slots=0'], '--slots=0 must be 1 to 1024'),
        (['--against=nothing'], 'there is no trained model in nothing'),
    ],
)
def test_wrong_flags_are_one_line(home, flags, message):
    (home / 'token').write_text('0123456789abcdef')
    config = f'--config={ROOT}/configs/char.py'
    done = run_main(config, f'--workdir={home / "char"}', '--mode=serve', *flags, cwd=home)
    assert message in one_line(done, 1)


@pytest.mark.parametrize(
    ('content', 'message'),
    [('short\n', 'has 5 characters and must have 16 or more'), ('two words\n', 'one word')],
)
def test_a_bad_token_is_refused(home, tmp_path, content, message):
    (tmp_path / 'token').write_text(content)
    flags = ['--mode=serve', f'--token_file={tmp_path / "token"}']
    done = run_main(f'--config={ROOT}/configs/char.py', f'--workdir={home / "char"}', *flags)
    assert message in one_line(done, 1)


@pytest.mark.parametrize('wait_s', [0.2, 1.0])
def test_a_signal_while_the_programs_are_compiled_ends_the_server(home, wait_s):
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / 'main.py'), f'--config={ROOT}/configs/char.py']
    flags = [f'--workdir={home / "char"}', '--mode=serve', f'--port={port}']
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)
    assert soon(lambda: status(f'http://127.0.0.1:{port}/healthz') == 503, 60)
    time.sleep(wait_s)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    lines = process.stderr.read().splitlines()
    assert [line for line in lines if 'Serving' not in line] == [DRAINING]


def status(url: str) -> int:
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return 0
