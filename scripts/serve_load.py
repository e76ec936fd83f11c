"""Loads a server: tokens a second and time to the first token at 1 and 16 clients.

  python scripts/serve_load.py runs/char [--tokens 1000] [--turns 5]

Turns alternate between one client, sixteen clients, and the same sixteen texts as one batch of
`Run.generate` in a process of its own. Prints medians, with the lowest and the highest turn.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

MAIN = Path(__file__).parents[1] / 'main.py'
CLIENTS = 16
BATCH = """
import sys, time
from gptjax.parallel import devices
devices.tune_cpu()
import gptjax
run = gptjax.load(sys.argv[1])
def generate(seed):
    start = time.perf_counter()
    run.generate([sys.argv[3]] * 16, max_new_tokens=int(sys.argv[2]), temperature=0.8, seed=seed)
    return time.perf_counter() - start
generate(0)
print('ready', flush=True)
for line in sys.stdin:
    print(generate(int(line)), flush=True)
"""


async def one_text(port: int, tokens: int, prompt: str, seed: int) -> float:
    """Reads a stream to its end; returns the seconds to its first text."""
    start, first = time.perf_counter(), 0.0
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    asked = {'prompt': prompt, 'max_tokens': tokens, 'seed': seed, 'temperature': 0.8}
    body = json.dumps({**asked, 'stream': True}).encode()
    head = 'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n'
    head += f'Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n'
    writer.write(head.encode() + body)
    while part := await reader.read(65536):
        if not first and b'"text"' in part:
            first = time.perf_counter() - start
    writer.close()
    return first


async def health(port: int, found: list[float]) -> None:
    """Notes the seconds that /healthz takes, ten times a second."""
    while True:
        start = time.perf_counter()
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        writer.write(b'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
        await reader.read()
        writer.close()
        found.append(time.perf_counter() - start)
        await asyncio.sleep(0.1)


async def turn(port: int, clients: int, args: argparse.Namespace, seed: int) -> dict[str, list]:
    """Tokens a second, times to the first text and of /healthz, of some clients at once."""
    healthy: list[float] = []
    asking = asyncio.create_task(health(port, healthy))
    start = time.perf_counter()
    texts = (one_text(port, args.tokens, args.prompt, 100 * seed + i) for i in range(clients))
    first = await asyncio.gather(*texts)
    seconds = time.perf_counter() - start
    asking.cancel()
    return {'rate': [clients * args.tokens / seconds], 'first': first, 'health': healthy}


def spread(values: list[float], scale: float = 1.0) -> str:
    """Median, lowest and highest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f'{middle * scale:,.4g} ({low * scale:,.4g} to {high * scale:,.4g})'


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('workdir')
    parser.add_argument('--config', default='char')
    parser.add_argument('--prompt', default='ROMEO:')
    parser.add_argument('--tokens', type=int, default=1000)
    parser.add_argument('--turns', type=int, default=5)
    args = parser.parse_args()
    serve = [f'--config={args.config}', f'--workdir={args.workdir}', '--mode=serve', '--port=0']
    server = subprocess.Popen(
        [sys.executable, str(MAIN), *serve], stderr=subprocess.PIPE, text=True
    )
    port = int(re.search(r':(\d+)$', server.stderr.readline())[1])
    batch = subprocess.Popen(
        [sys.executable, '-c', BATCH, args.workdir, str(args.tokens), args.prompt],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    batch.stdout.readline()
    rates: dict[object, list[float]] = {1: [], CLIENTS: [], 'batch': []}
    first: dict[int, list[float]] = {1: [], CLIENTS: []}
    healthy: list[float] = []
    for seed in range(args.turns):
        for clients in (1, CLIENTS):
            found = asyncio.run(turn(port, clients, args, seed))
            rates[clients] += found['rate']
            first[clients] += found['first']
            healthy += found['health']
        batch.stdin.write(f'{seed}\n')
        batch.stdin.flush()
        rates['batch'].append(CLIENTS * args.tokens / float(batch.stdout.readline()))
    server.terminate()
    batch.stdin.close()
    for name, values in rates.items():
        print(f'{name}: {spread(values)} tokens/s')
    for clients, values in first.items():
        p95 = sorted(values)[int(0.95 * (len(values) - 1))]
        print(f'{clients} clients, first text: {spread(values, 1e3)} ms, p95 {p95 * 1e3:.1f}')
    pairs = list(zip(rates[CLIENTS], rates['batch'], rates[1], strict=True))
    print('16 clients over the batch:', spread([crowd / whole for crowd, whole, _ in pairs]))
    print('16 clients over one:', spread([crowd / one for crowd, _, one in pairs]))
    print(f'/healthz meanwhile: {spread(healthy, 1e3)} ms')


if __name__ == '__main__':
    main()
