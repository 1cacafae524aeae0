"""The number format and the device that a model gets."""

from __future__ import annotations

import pytest
import torch

from providers.precision import choose_device, choose_precision

CPU = torch.device("cpu")


def test_a_cpu_computes_in_fp32_or_bf16_and_always_in_the_same() -> None:
    assert len({choose_precision(CPU) for _ in range(30)}) == 1, "the same seed would write another text"
    assert choose_precision(CPU) in (torch.float32, torch.bfloat16)


def test_other_devices_compute_in_half_precision() -> None:
    assert choose_precision(torch.device("mps")) == torch.float16


def test_the_device_is_what_was_asked_for() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_in_half_precision() -> None:
    assert choose_device("auto").type == "cuda"
    assert choose_precision(choose_device("auto")) in (torch.bfloat16, torch.float16)
