"""What a benchmark ran on."""

import os
import platform
import re
import resource
import sys
from pathlib import Path

from gptjax.parallel.devices import cpu_flags

EXTENSIONS = {
    'avx2': 'AVX2',
    'avx512f': 'AVX-512',
    'avx512_bf16': 'AVX-512 BF16',
    'amx_bf16': 'AMX',
}


def hardware() -> str:
    """The processor, its cores, and the vector extensions that matter to matrix products."""
    name, about = platform.processor() or platform.machine(), Path('/proc/cpuinfo')
    if about.exists():
        lines = dict(re.findall(r'^(.+?)\s*: (.+)$', about.read_text(), re.MULTILINE))
        name = lines.get('model name', name)
    extensions = [words for flag, words in EXTENSIONS.items() if flag in cpu_flags()]
    return ', '.join([name, f'{os.cpu_count()} cores', *extensions])


def resident_bytes() -> int:
    """The most main memory that this process had so far."""
    status = Path('/proc/self/status')
    if status.exists():
        # On Linux getrusage also counts the parent as it was at the fork, which may be larger.
        (kilobytes,) = re.findall(r'VmHWM:\s+(\d+) kB', status.read_text())
        return int(kilobytes) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == 'darwin' else 1024)
