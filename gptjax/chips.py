"""What chips can do, and how near to it a run is."""

import os
import platform
import re
from pathlib import Path

# Dense bfloat16 FLOP/s of one chip, from the makers' data sheets; keys begin jax's device_kind.
PEAK_FLOPS = {
    'NVIDIA A100': 312e12,
    'NVIDIA H100': 989e12,
    'NVIDIA H200': 989e12,
    'NVIDIA GH200': 989e12,
    'NVIDIA L4': 121e12,
    'NVIDIA A10': 125e12,
    'NVIDIA B200': 2250e12,
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5p': 459e12,
    'TPU v6 lite': 918e12,
}

# Flags of CPUs, and the names of these extensions.
EXTENSIONS = {
    'avx2': 'AVX2',
    'avx512f': 'AVX-512',
    'avx512_bf16': 'AVX-512 BF16',
    'amx_bf16': 'AMX',
}

BFLOAT16 = {'avx512_bf16', 'amx_bf16'}  # flags of CPUs that multiply bfloat16


def model_flops_utilization(flops_per_s: float, device_kind: str, n_devices: int) -> float | None:
    """Share (0 to 1) of the devices' peak that a model's own FLOPs use (Chowdhery et al., 2022).

    None where the chip's peak is unknown, as on CPUs.
    """
    kinds = [kind for kind in PEAK_FLOPS if device_kind.startswith(kind)]
    return flops_per_s / (PEAK_FLOPS[max(kinds, key=len)] * n_devices) if kinds else None


def hardware() -> str:
    """The CPU, its cores, and the vector extensions that matter to matrix products."""
    name = _about_cpu('model name') or platform.processor() or platform.machine()
    extensions = [words for flag, words in EXTENSIONS.items() if flag in cpu_flags()]
    return ', '.join([name, f'{os.cpu_count()} cores', *extensions])


def cpu_flags() -> set[str]:
    """The vector extensions and other abilities of the CPU, by Linux's names; elsewhere none."""
    return set(_about_cpu('flags').split())


def has_accelerator() -> bool:
    """Whether JAX found something better than a CPU."""
    import jax

    return jax.default_backend() != 'cpu'


def _about_cpu(key: str) -> str:
    """What Linux tells of the first processor; elsewhere nothing."""
    about = Path('/proc/cpuinfo')
    text = about.read_text() if about.exists() else ''
    found = re.search(rf'^{key}\s*: (.+)$', text, re.MULTILINE)
    return found[1] if found else ''
