"""Loads a server: tokens a second and time to the first token at 1 and at some clients.

  python scripts/serve_load.py runs/char [--clients 16] [--tokens 1000] [--turns 5]
  python scripts/serve_load.py runs/gpt2 --config=gpt2 --clients=8 --ctranslate2=EXPORTED

Turns alternate between one client, several clients, one text without a server and the same number
of texts as a batch without a server, in a process of its own: by `Run.generate`, or by CTranslate2
with the files of --mode=export. Prints medians, with the lowest and the highest turn.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MAIN = Path(__file__).parents[1] / 'main.py'
# Programs that are asked for the seconds of some texts: "rows seed" on standard input.
ASKED = """
import sys, time
folder, tokens, prompt, temporary = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
{setup}
for line in sys.stdin:
    rows, seed = map(int, line.split())
    start = time.perf_counter()
    {generate}
    print(time.perf_counter() - start, flush=True)
"""
OURS = ASKED.format(
    setup="""
from gptjax import devices
devices.tune_cpu()
import gptjax
run = gptjax.load(folder)
knobs = {'max_new_tokens': tokens, 'temperature': 0.8}
""",
    generate='run.generate([prompt] * rows, seed=seed, **knobs)',
)
CTRANSLATE2 = ASKED.format(
    setup="""
import json, os
import ctranslate2, tokenizers
from ctranslate2.converters import TransformersConverter
TransformersConverter(folder).convert(temporary, force=True)
cores = len(os.sched_getaffinity(0))
generator = ctranslate2.Generator(temporary, compute_type='float32', intra_threads=cores)
words = tokenizers.Tokenizer.from_file(folder + '/tokenizer.json').encode(prompt).tokens
knobs = {'sampling_topk': 0, 'sampling_temperature': 0.8, 'include_prompt_in_result': False}
knobs |= {'min_length': tokens, 'max_length': tokens, 'end_token': []}
""",
    generate='generator.generate_batch([words] * rows, **knobs)',
)


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


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Turn by turn."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('workdir')
    parser.add_argument('--config', default='char')
    parser.add_argument('--prompt', default='ROMEO:')
    parser.add_argument('--tokens', type=int, default=1000)
    parser.add_argument('--clients', type=int, default=16)
    parser.add_argument('--ctranslate2', help='folder that --mode=export wrote')
    parser.add_argument('--turns', type=int, default=5)
    args = parser.parse_args()
    serve = [f'--config={args.config}', f'--workdir={args.workdir}', '--mode=serve', '--port=0']
    serve.append(f'--slots={args.clients}')
    server = subprocess.Popen(
        [sys.executable, str(MAIN), *serve], stderr=subprocess.PIPE, text=True
    )
    port = int(re.search(r':(\d+)$', server.stderr.readline())[1])
    with tempfile.TemporaryDirectory() as folder:
        asked = [args.ctranslate2 or args.workdir, str(args.tokens), args.prompt, folder]
        peer = subprocess.Popen(
            [sys.executable, '-c', CTRANSLATE2 if args.ctranslate2 else OURS, *asked],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

        def without_server(rows: int, seed: int) -> float:
            print(rows, seed, file=peer.stdin, flush=True)
            return rows * args.tokens / float(peer.stdout.readline())

        sizes = (1, args.clients)
        for rows in sizes:
            without_server(rows, 0)  # Compiles.
        served: dict[int, list[float]] = {rows: [] for rows in sizes}
        alone: dict[int, list[float]] = {rows: [] for rows in sizes}
        first: dict[int, list[float]] = {rows: [] for rows in sizes}
        healthy: list[float] = []
        for seed in range(args.turns):
            for rows in sizes:
                found = asyncio.run(turn(port, rows, args, seed))
                served[rows] += found['rate']
                first[rows] += found['first']
                healthy += found['health']
                alone[rows].append(without_server(rows, seed))
        server.terminate()
        peer.stdin.close()
        peer.wait()
    name = 'CTranslate2' if args.ctranslate2 else 'Run.generate'
    for rows in sizes:
        p95 = sorted(first[rows])[int(0.95 * (len(first[rows]) - 1))]
        print(f'clients: {rows}')
        print(f'  tokens/s: {spread(served[rows])}; {name}: {spread(alone[rows])}')
        print(f'  over {name}: {spread(ratios(served[rows], alone[rows]))}')
        print(f'  first text, ms: {spread(first[rows], 1e3)}, p95 {p95 * 1e3:.1f}')
    print(f'{args.clients} clients over one: {spread(ratios(served[args.clients], served[1]))}')
    print(f'/healthz meanwhile, ms: {spread(healthy, 1e3)}')


if __name__ == '__main__':
    main()
