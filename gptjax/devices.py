"""What JAX computes on. The settings have to be made before JAX is imported."""

import ctypes
import os
import sys

# glibc's <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def tune_cpu() -> None:
    """Makes JAX fast on CPUs; it changes nothing on a GPU.

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


def has_accelerator() -> bool:
    """Whether JAX found something better than a CPU."""
    import jax

    return jax.default_backend() != 'cpu'
