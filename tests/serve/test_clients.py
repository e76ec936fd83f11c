"""Clients that join, leave, stall and lie, in any order: Hypothesis looks for the order that fails.

Whatever happens, a text is what it is alone, and when all have gone no slot is taken.
"""

import functools
import json

import pytest

from tests.conftest import optional
from tests.serve.conftest import soon
from tests.serve.test_server import MIXED, PROMPT, ask, bare, texts_of

httpx = optional('httpx')
pytestmark = pytest.mark.serve

LIES = [
    b'{"prompt": "To", "max_tokens": 1e99}',
    b'{"prompt": "\\ud800"}',
    b'\xff\xfe',
    b'[' * 5000,
    b'{"n": 128, "max_tokens": 16384}',
    b'{"prompt": [[1, -1]]}',
    b'{"stop": ["a", 3]}',
    b'{"logit_bias": {"1": NaN}}',
]


def body_of(i: int, **values) -> bytes:
    return json.dumps({'prompt': PROMPT, 'seed': 1, **MIXED[i], **values}).encode()


def finish(sock) -> dict:
    """Reads a whole answer from a bare connection that asked for it to be the last."""
    data = b''
    while part := sock.recv(65536):
        data += part
        head, _, body = data.partition(b'\r\n\r\n')
        if b'content-length' in head.lower():
            length = int(head.lower().split(b'content-length: ')[1].split(b'\r\n')[0])
            if len(body) >= length:
                break
    sock.close()
    return json.loads(body)


def test_clients_in_any_order(address, metrics):
    from hypothesis import HealthCheck, settings, stateful
    from hypothesis import strategies as st

    alone = functools.cache(lambda i: ask(address, **{'seed': 1, **MIXED[i]}))
    indices = st.integers(0, len(MIXED) - 1)

    class Clients(stateful.RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.waiting, self.stalled = [], []

        @stateful.rule(i=indices)
        def joins(self, i):
            self.waiting.append((i, bare(address, body_of(i))))

        @stateful.rule(i=indices, stream=st.booleans())
        def leaves(self, i, stream):
            bare(address, body_of(i, stream=stream and 'best_of' not in MIXED[i])).close()

        @stateful.rule(i=indices)
        def stalls(self, i):
            body = body_of(i)
            self.stalled.append(bare(address, body[:-5], length=len(body)))

        @stateful.rule()
        def reads_nothing(self):
            body = body_of(0, stream=True, max_tokens=500)
            self.stalled.append(bare(address, body))

        @stateful.rule(body=st.sampled_from(LIES) | st.binary(max_size=40))
        def lies(self, body):
            headers = {'content-type': 'application/json'}
            answer = httpx.post(
                f'{address}/v1/completions', content=body, headers=headers, timeout=60
            )
            assert answer.status_code == 400
            assert answer.json()['error']['message']

        @stateful.precondition(lambda self: self.waiting)
        @stateful.rule()
        def gets_what_it_would_get_alone(self):
            i, sock = self.waiting.pop(0)
            assert texts_of(finish(sock)['choices']) == texts_of(alone(i))

        def teardown(self):
            while self.waiting:
                self.gets_what_it_would_get_alone()
            for sock in self.stalled:
                sock.close()
            names = ('gptjax_slots_busy', 'gptjax_queue', 'gptjax_live')
            assert soon(lambda: not any(metrics()[name] for name in names))

    how = settings(
        max_examples=12,
        stateful_step_count=15,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    stateful.run_state_machine_as_test(Clients, settings=how)


@pytest.mark.slow
def test_a_thousand_clients_that_leave_cost_nothing(address, metrics):
    ask(address)
    before = metrics()
    for n in range(1000):
        i = n % len(MIXED)
        body = body_of(i, stream=n % 2 == 0 and 'best_of' not in MIXED[i], max_tokens=1000)
        bare(address, body).close()
        if n == 200:
            middle = metrics()['process_resident_memory_bytes']
    names = ('gptjax_slots_busy', 'gptjax_queue', 'gptjax_live')
    assert soon(lambda: not any(metrics()[name] for name in names), 60)
    after = metrics()
    assert after['gptjax_compilations_total'] == before['gptjax_compilations_total']
    assert after['process_resident_memory_bytes'] < middle + 30e6
