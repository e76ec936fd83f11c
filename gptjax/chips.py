"""What chips can do, and how near to it a run is."""

import os
import platform
import re
from pathlib import Path
from typing import NamedTuple

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


class Chip(NamedTuple):
    """What --mode=plan knows of a chip. All speeds are the makers' and go one way."""

    kind: str  # a key of PEAK_FLOPS
    memory_bytes: float
    memory_bytes_per_s: float
    link_bytes_per_s: float  # to the other chips of a node (NVLink) or slice (ICI)
    node: int = 2**20  # chips that the fast links join
    network_bytes_per_s: float = 0.0  # of a chip, to other nodes
    host_bytes_per_s: float = 0.0  # between the chip and its host; 0: not known here

    @property
    def peak_flops(self) -> float:
        """Dense bfloat16 FLOP/s."""
        return PEAK_FLOPS[self.kind]


CHIPS = {
    # NVIDIA A100 data sheet (SXM, 80 GB): NVLink has 600 GB/s both ways together. DGX A100: a
    # network card of 200 Gb/s for each GPU. PCIe: 64 GB/s both ways.
    'a100': Chip('NVIDIA A100', 80e9, 2.039e12, 300e9, 8, 25e9, 32e9),
    # NVIDIA H100 data sheet (SXM): 900 GB/s both ways, PCIe 128. DGX H100: 400 Gb/s for each GPU.
    'h100': Chip('NVIDIA H100', 80e9, 3.35e12, 450e9, 8, 50e9, 64e9),
    # NVIDIA H200 data sheet (SXM): 900 GB/s both ways, PCIe 128. DGX H200: 400 Gb/s for each GPU.
    'h200': Chip('NVIDIA H200', 141e9, 4.8e12, 450e9, 8, 50e9, 64e9),
    # NVIDIA DGX B200 data sheet, an eighth of it: 1,440 GB, 64 TB/s; NVLink 1,800 GB/s both ways.
    'b200': Chip('NVIDIA B200', 180e9, 8e12, 900e9, 8, 50e9),
    # https://cloud.google.com/tpu/docs/v5e: 400 GB/s both ways.
    'v5e': Chip('TPU v5 lite', 16e9, 819e9, 200e9),
    # https://cloud.google.com/tpu/docs/v5p: 4,800 Gb/s.
    'v5p': Chip('TPU v5p', 95e9, 2.765e12, 600e9),
    # https://cloud.google.com/tpu/docs/v6e: 800 GB/s both ways.
    'v6e': Chip('TPU v6 lite', 32e9, 1.638e12, 400e9),
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
