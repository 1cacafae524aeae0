"""Linear layers with 8-bit weights, for processors: each token of a chat reads all weights, so fewer bytes are faster.

Weights are symmetric int8 with a scale for each output (absolute maximum over 127); activations stay bf16, and
torch's own kernel multiplies them. Several rows at once are as fast over bf16 weights, made block by block when needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

FEW_ROWS = 8  # Up to here torch's kernel is the faster one; measured, and the same from 0.3 to 17 million weights.
BLOCK_NUMBERS = 1 << 21
LEVELS = 127
KERNEL_TYPE = torch.bfloat16  # torch's kernel for fp32 activations is slower than no int8 at all.


class Int8Linear(torch.nn.Linear):
    """A linear layer whose weights are int8: (outputs, inputs) and a scale for each output."""

    scale: torch.Tensor

    def __init__(self, linear: torch.nn.Linear) -> None:
        """Take over a layer of bf16, fp16 or fp32 weights."""
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = quantize(linear.weight.detach())
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale.to(KERNEL_TYPE))
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., inputs) in bf16 to (..., outputs)."""
        rows = x.reshape(-1, self.in_features)
        if rows.shape[0] <= FEW_ROWS:
            y = torch._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            y = self._in_blocks(rows)
        if self.bias is not None:
            y = y + self.bias
        return y.reshape(*x.shape[:-1], self.out_features)

    def _in_blocks(self, rows: torch.Tensor) -> torch.Tensor:
        y = rows.new_empty(rows.shape[0], self.out_features)
        size = max(64, BLOCK_NUMBERS // self.in_features)
        for start in range(0, self.out_features, size):
            part = slice(start, start + size)
            block = functional.linear(rows, self.weight[part].to(rows.dtype))
            torch.mul(block, self.scale[part], out=y[:, part])
        return y


class Int8Embedding(torch.nn.Module):
    """An embedding that reads its rows from the int8 weights of the output layer that it is tied to."""

    def __init__(self, output: Int8Linear) -> None:
        super().__init__()
        self.weight = output.weight
        self.register_buffer("scale", output.scale)
        self.num_embeddings, self.embedding_dim = output.out_features, output.in_features

    scale: torch.Tensor

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map token numbers (...) to (..., width) in bf16."""
        return self.weight[tokens].to(KERNEL_TYPE) * self.scale[tokens].unsqueeze(-1)


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the int8 weights (outputs, inputs) and the fp32 scales (outputs)."""
    full = weight.float()
    scale = full.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / LEVELS
    return (full / scale[:, None]).round_().to(torch.int8), scale


def to_int8(model: Any) -> Iterator[None]:
    """Replace the linear layers of `model` in place, one at each step, and at the end turn the rest into bf16."""
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output is not None and output.weight is embedding.weight
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(parent, name, Int8Linear(child))
                yield
    if tied and type(embedding) is torch.nn.Embedding:
        model.set_input_embeddings(Int8Embedding(model.get_output_embeddings()))
    model.to(KERNEL_TYPE)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype == KERNEL_TYPE:
            tensor.data = tensor.data.clone()  # What is left would hold the whole file in memory.
