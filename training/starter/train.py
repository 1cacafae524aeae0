"""Training the starter model on a processor: float32 weights, bfloat16 arithmetic, one seed."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from training.starter.batches import Batch, Batches
from training.starter.corpus import Corpus, PlainText
from training.starter.tokenizer import CONTEXT, train_tokenizer

_TOKENIZER_SAMPLE = 6000
_WARM_UP = 30
_PEAK_RATE, _LAST_RATE = 4e-3, 4e-5
_VALIDATION_SEED_OFFSET = 1_000_000
_VALIDATION_BATCHES = 16


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How long to train and with what; the first limit that is reached ends it."""

    output: Path
    steps: int
    minutes: float
    threads: int
    seed: int = 1


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What one training run measured."""

    parameters: int
    steps: int
    tokens: int
    seconds: float
    training_loss: float
    validation_loss: float


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer on a sample of the corpus."""
    items = islice(Corpus(seed), _TOKENIZER_SAMPLE)
    return train_tokenizer(
        item.text if isinstance(item, PlainText) else "\n".join(m["content"] for m in item) for item in items
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Make an untrained model; every dimension is a multiple of 64."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def build_optimizers(model: LlamaForCausalLM) -> tuple[torch.optim.Optimizer, ...]:
    """Give the layers' matrices to Muon, which learns more in as many steps, and the rest to AdamW."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "embed_tokens" not in name
        (matrices if is_matrix else others).append(parameter)
    return (
        torch.optim.Muon(matrices, lr=_PEAK_RATE, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=_PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.1),
    )


def batch_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Compute the weighted mean loss of a batch's tokens."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # Without a mask transformers would take each gap in position_ids for a new, isolated row.
        logits = model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=torch.ones_like(batch.input_ids),
            use_cache=False,
        ).logits
    predicted = logits[:, :-1].float().flatten(0, 1)
    losses = cross_entropy(predicted, batch.input_ids[:, 1:].flatten(), reduction="none")
    weights = batch.weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def learning_rate(step: int, progress: float) -> float:
    """Rise during the warm-up, then fall along a cosine to almost nothing."""
    cosine = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    rate = _LAST_RATE + (_PEAK_RATE - _LAST_RATE) * cosine
    return rate * min(1.0, (step + 1) / _WARM_UP)


def train(plan: TrainingPlan) -> TrainingResult:
    """Train a model from nothing and save it."""
    torch.manual_seed(plan.seed)
    torch.set_num_threads(plan.threads)
    tokenizer = build_tokenizer(plan.seed)
    model = build_model(tokenizer)
    optimizers = build_optimizers(model)
    losses: list[float] = []
    tokens = 0
    started = time.monotonic()
    batches = islice(Batches(tokenizer, plan.seed), plan.steps)
    for step, batch in enumerate(bar := tqdm(batches, total=plan.steps, unit="step")):
        minutes = (time.monotonic() - started) / 60
        if minutes > plan.minutes:
            break
        rate = learning_rate(step, max(step / plan.steps, minutes / plan.minutes))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss = batch_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        tokens += batch.input_ids.numel()
        bar.set_postfix(loss=f"{sum(losses[-20:]) / len(losses[-20:]):.3f}")
    seconds = time.monotonic() - started
    bar.close()
    save(model, tokenizer, plan.output)
    return TrainingResult(
        parameters=model.num_parameters(),
        steps=len(losses),
        tokens=tokens,
        seconds=seconds,
        training_loss=sum(losses[-50:]) / len(losses[-50:]),
        validation_loss=validation_loss(model, tokenizer, plan.seed),
    )


@torch.no_grad()
def validation_loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> float:
    """Compute the mean loss on conversations of another seed."""
    model.eval()
    batches = islice(Batches(tokenizer, seed + _VALIDATION_SEED_OFFSET), _VALIDATION_BATCHES)
    losses = [batch_loss(model, batch).item() for batch in batches]
    return sum(losses) / len(losses)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save bfloat16 weights and the tokenizer, ready for `from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    weights = LlamaForCausalLM(model.config).to(torch.bfloat16)
    weights.load_state_dict(model.state_dict())
    weights.generation_config = model.generation_config
    weights.config.dtype = torch.bfloat16
    weights.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
