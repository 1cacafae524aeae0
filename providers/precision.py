"""Which device and number format a model computes on: the same machine always chooses the same, so texts repeat."""

from __future__ import annotations

import torch


def choose_device(wanted: str) -> torch.device:
    """Return the device for `wanted`; "auto" is the first GPU, else the CPU."""
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(device: torch.device) -> torch.dtype:
    """Return bf16 or fp16 on a GPU, and on a CPU the faster of fp32 and bf16.

    bf16 is the faster one with AMX: prompts take less than half the time and single tokens the same. With AVX-512 bf16
    instructions alone, prompts take half the time but single tokens two to three times as long, so fp32 wins a chat.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else torch.float32
