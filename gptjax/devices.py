"""What JAX computes on. The settings have to be made before JAX is imported."""

import os


def use_all_cores() -> None:
    """Gives JAX one CPU device for each core, unless JAX_NUM_CPU_DEVICES says otherwise.

    Some loops of XLA's CPU backend use one thread; with the batch split over several devices they
    run on all cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    os.environ.setdefault('JAX_NUM_CPU_DEVICES', str(cores))


def has_accelerator() -> bool:
    """Whether JAX found something better than a CPU."""
    import jax

    return jax.default_backend() != 'cpu'
