"""The model while it trains: bfloat16 for the arithmetic, float32 for what is learnt, and a state to resume from."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from training.starter.batches import Batch
from training.starter.tokenizer import CONTEXT


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of a starter, all multiples of 64; heads have 64."""

    layers: int = 6
    hidden: int = 256
    intermediate: int = 768
    heads: int = 4
    kv_heads: int = 2


def build_model(tokenizer: PreTrainedTokenizerFast, shape: Shape | None = None) -> LlamaForCausalLM:
    """Make an untrained model in float32."""
    shape = shape or Shape()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batch_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Compute the weighted mean loss of a batch's tokens, in float32."""
    logits = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=batch.mask(model.dtype),
        use_cache=False,
    ).logits
    weights = batch.weights[:, 1:].flatten()
    learnt = weights > 0
    predicted = logits[:, :-1].flatten(0, 1)[learnt].float()
    losses = cross_entropy(predicted, batch.input_ids[:, 1:].flatten()[learnt], reduction="none")
    return (losses * weights[learnt]).sum() / weights.sum()


class Learner:
    """Float32 weights that Muon and AdamW move, and the bfloat16 copy that computes the gradients."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.model = model
        # On processors, in short rows with a mask of their own, plain products are faster than fused attention.
        if model.device.type == "cpu":
            model.set_attn_implementation("eager")
        self._masters = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        matrices = [name for name, weight in self._masters.items() if weight.ndim == 2 and "embed_tokens" not in name]
        others = [name for name in self._masters if name not in matrices]
        self._optimizers = {
            "muon": torch.optim.Muon(
                [self._masters[name] for name in matrices], weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
            ),
            "adamw": torch.optim.AdamW([self._masters[name] for name in others], betas=(0.9, 0.95), weight_decay=0.1),
        }
        model.to(torch.bfloat16)
        # A GPU would wait for the launch of each small kernel: so it replays all those of a shape of batch at once.
        if model.device.type == "cuda":
            model.compile(mode="reduce-overhead", dynamic=False)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Compute the loss of a batch where the model is."""
        return batch_loss(self.model, batch.to(self.model.device))

    def step(self, batch: Batch, rate: float) -> float:
        """Learn from one batch; return its loss. Raises ArithmeticError, before learning, if that is no number."""
        loss = self.loss(batch)
        if not math.isfinite(value := loss.item()):
            raise ArithmeticError("The loss is no number: what was kept before is whole, but the text needs a look.")
        loss.backward()  # type: ignore[no-untyped-call]
        for name, weight in self.model.named_parameters():
            assert weight.grad is not None
            self._masters[name].grad = weight.grad.float()
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(self._masters.values(), 1.0)
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        self._show()
        return value

    @torch.no_grad()
    def blend(self, other: LlamaForCausalLM, share: float) -> None:
        """Move all weights towards another model's of the same shape, by so much of the way."""
        for name, weight in other.named_parameters():
            self._masters[name].lerp_(weight.to(self._masters[name]), share)
        self._show()

    @torch.no_grad()
    def _show(self) -> None:
        for name, weight in self.model.named_parameters():
            weight.copy_(self._masters[name])

    def save(self, file: Path, facts: dict[str, object]) -> None:
        """Keep the whole state; the file appears when it is whole."""
        tensors = {f"weight/{name}": weight for name, weight in self._masters.items()}
        for kind, optimizer in self._optimizers.items():
            for number, values in optimizer.state_dict()["state"].items():
                tensors |= {f"{kind}/{number}/{key}": torch.as_tensor(value) for key, value in values.items()}
        making = file.with_suffix(".making")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, making, {"facts": json.dumps(facts)})
        making.replace(file)

    def load(self, file: Path) -> dict[str, object]:
        """Go back to a kept state; return what was kept with it."""
        states: dict[str, dict[int, dict[str, torch.Tensor]]] = {kind: {} for kind in self._optimizers}
        with safe_open(file, framework="pt") as tensors, torch.no_grad():
            for name in tensors.keys():  # noqa: SIM118  # It is no dict.
                kind, rest = name.split("/", 1)
                if kind == "weight":
                    self._masters[rest].copy_(tensors.get_tensor(name))
                else:
                    number, key = rest.split("/")
                    states[kind].setdefault(int(number), {})[key] = tensors.get_tensor(name)
            facts: dict[str, object] = json.loads(tensors.metadata()["facts"])
        for kind, optimizer in self._optimizers.items():
            optimizer.load_state_dict({"state": states[kind], "param_groups": optimizer.state_dict()["param_groups"]})
        self._show()
        return facts


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save bfloat16 weights and the tokenizer, ready for `from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.config.dtype = torch.bfloat16
    model.cpu().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
