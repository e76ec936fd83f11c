"""What chips can do, and how near to it a run is."""

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


def model_flops_utilization(flops_per_s: float, device_kind: str, n_devices: int) -> float | None:
    """Share (0 to 1) of the devices' peak that a model's own FLOPs use (Chowdhery et al., 2022).

    None where the chip's peak is unknown, as on CPUs.
    """
    kinds = [kind for kind in PEAK_FLOPS if device_kind.startswith(kind)]
    return flops_per_s / (PEAK_FLOPS[max(kinds, key=len)] * n_devices) if kinds else None
