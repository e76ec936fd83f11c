"""What JAX computes on, and how it is set up for that."""

import ctypes
import os
import re
import sys
from pathlib import Path

from gptjax.chips import has_accelerator

# glibc's <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8

# Of a CPU: with fewer, a copy of the model for each device costs more than it gains.
LEAST_TOKENS = 1024  # of a micro-batch in training
LEAST_ROWS = 32  # in decoding; half as many with fewer than SMALL parameters
SMALL = 8_000_000
LEAST_WORK = 5_000_000  # in decoding: rows times parameters


def tune_cpu() -> None:
    """Makes JAX fast on CPUs, if called before JAX is imported.

    JAX gets one device for each core, unless JAX_NUM_CPU_DEVICES says otherwise: some loops of
    XLA's CPU backend use one thread, and with the batch split over devices they run on all cores.

    glibc keeps freed memory: by default it returns XLA's large buffers to the system after every
    step, and the page faults of getting them back cost up to a third of the next step.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    os.environ.setdefault('JAX_NUM_CPU_DEVICES', str(cores))
    if sys.platform == 'linux':
        mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)  # Other C libraries may lack it.
        if mallopt:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_ARENA_MAX, 1)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def may_have_accelerator() -> bool:
    """Whether JAX may find something better than a CPU; it is not imported for that."""
    if os.environ.get('JAX_PLATFORMS') == 'cpu':
        return False
    files = ('nvidia*', 'dxg', 'kfd', 'accel*', 'vfio/*')  # of the drivers of GPUs and TPUs
    return any(any(Path('/dev').glob(name)) for name in files)


def free_memory() -> int | None:
    """Bytes of main memory and swap space that a program can get; None where that is unknown."""
    about = Path('/proc/meminfo')
    text = about.read_text() if about.exists() else ''
    found = dict(re.findall(r'^(\w+):\s+(\d+) kB', text, re.MULTILINE))
    if 'MemAvailable' not in found:
        return None
    # What the system can take back from caches is in MemAvailable.
    return 1024 * (int(found['MemAvailable']) + int(found.get('SwapFree', 0)))


def keep_compiled(folder: Path) -> None:
    """Turns on JAX's compilation cache, unless JAX_COMPILATION_CACHE_DIR already names one.

    Cached programs are executed, so the folder must belong to the user and be private (0700);
    otherwise it is not used.
    """
    if 'JAX_COMPILATION_CACHE_DIR' in os.environ:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        private = folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o077
    except OSError:  # A home that cannot be written to: compile anew every time.
        return
    if private:
        import jax

        jax.config.update('jax_compilation_cache_dir', str(folder))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def copies_pay(tokens: int) -> bool:
    """Whether training is faster with its rows split over devices that each have the whole model.

    The devices of a CPU share its memory, which then holds, reads and writes every copy, while one
    device already uses all cores for large matrix products. docs/performance.md has the table.
    `tokens` are those of a micro-batch.
    """
    return has_accelerator() or tokens >= LEAST_TOKENS


def copies_pay_in_decoding(params: int, rows: int) -> bool:
    """Whether decoding `rows` texts at a time is faster with a copy of the model per device."""
    least = LEAST_ROWS // 2 if params < SMALL else LEAST_ROWS
    enough = rows >= least and params * rows >= LEAST_WORK
    return has_accelerator() or enough
