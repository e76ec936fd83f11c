"""The utilisation of known chips."""

import pytest

from gptjax.chips import model_flops_utilization


def test_mfu_needs_a_known_chip():
    assert model_flops_utilization(989e12, 'NVIDIA H200', 2) == pytest.approx(0.5)
    assert model_flops_utilization(1e12, 'cpu', 1) is None
    # The longest name that fits: an A100 is no A10.
    assert model_flops_utilization(312e12, 'NVIDIA A100-SXM4-40GB', 1) == pytest.approx(1.0)
