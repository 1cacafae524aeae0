"""Which device, number format and context a transformers model is loaded with, and why; and the loading itself."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from providers.errors import Cancelled, ModelNotFound, OutOfMemory, ProviderError, Rejected
from providers.local_folders import ModelFolder
from providers.local_vision import sees
from providers.machine import memory_of, process_bytes
from providers.memory import Sizes, kv_bytes, overhead_bytes, sizes_of, weight_bytes
from providers.precision import choose_device, choose_precision
from providers.sentences import Sentence, say
from providers.speed_probe import chat_seconds
from providers.types import LoadOptions, MemoryEstimate
from providers.weight_headers import safetensors_header

LARGE = 50_000_000  # Weights from which the format decides over the speed; smaller ones stay exact.
CLEARLY_FASTER = 1.2
SHORTEST_CONTEXT = 4096
PAGE_BYTES = 4096
PRECISION_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
SHORT_NAMES = {name: short for short, name in PRECISION_NAMES.items()}


@dataclass(frozen=True)
class LoadPlan:
    """How a model is loaded: torch's names for device and precision, and the sentence that says why."""

    device: str
    precision: str
    quantization: str
    context_length: int
    attention: str | None
    reason: Sentence


def make_plan(folder: ModelFolder, sizes: Sizes, options: LoadOptions) -> LoadPlan:
    """Decide what `options` leave open. Raises Rejected for a choice that this machine or this model does not have."""
    device = _device(options.device)
    kind = device.split(":")[0]
    precision, quantization, reason = _format(kind, sizes, options)
    attention = options.attention if options.attention != "auto" else None  # The best that the architecture has.
    length = min(options.context_length or folder.context_length, folder.context_length)
    plan = LoadPlan(device, precision, quantization, length, attention, reason)
    if options.context_length is None:
        free = memory_of(device).available_bytes
        while length > SHORTEST_CONTEXT and _total(plan, sizes, length) > free:
            length = max(SHORTEST_CONTEXT, length // 2)
        if length < plan.context_length:
            reason = say(
                "{why} The context is {length} of the model's {most} tokens, so that it fits.",
                why=reason,
                length=length,
                most=plan.context_length,
            )
    return LoadPlan(device, precision, quantization, length, attention, reason)


def estimate(plan: LoadPlan, sizes: Sizes) -> MemoryEstimate:
    """Say what the model will take under this plan, and what would fit where it does not."""
    size = 4 if plan.precision == "float32" else 2
    available = memory_of(plan.device).available_bytes
    return MemoryEstimate(
        device=plan.device,
        precision=plan.precision,
        quantization=plan.quantization,
        context_length=plan.context_length,
        weights_bytes=weight_bytes(sizes, plan.precision, _own_name(plan)),
        kv_cache_bytes=kv_bytes(sizes.config, plan.context_length, size),
        overhead_bytes=overhead_bytes(sizes, plan.context_length, size),
        available_bytes=available,
        reason=plan.reason,
        suggestion=suggestion(plan, sizes, available),
    )


def suggestion(plan: LoadPlan, sizes: Sizes, available_bytes: int) -> Sentence | None:
    """Say what would fit instead, where this does not: a smaller format, a shorter context, another device."""
    if _total(plan, sizes, plan.context_length) <= available_bytes:
        return None
    others = [plan.quantization] + [name for name in _quantizations(plan.device, sizes) if name != plan.quantization]
    for name in others:
        for length in (plan.context_length, *_shorter(plan.context_length)):
            other = LoadPlan(plan.device, plan.precision, name, length, plan.attention, plan.reason)
            if _total(other, sizes, length) <= available_bytes:
                return say(
                    "It would fit with quantization {quantization} and a context of {length} tokens.",
                    quantization=name,
                    length=length,
                )
    if plan.device != "cpu" and _total(plan, sizes, plan.context_length) <= memory_of("cpu").available_bytes:
        return say("It would fit on the processor (device cpu), more slowly.")
    return say("Choose a smaller model, or a GGUF file of it.")


def folder_sizes(folder: ModelFolder) -> Sizes:
    """Count the weights in a folder, by the headers of its files. Raises ModelNotFound where they are not whole."""
    try:
        return sizes_of(safetensors_header(folder.weights), folder.config)
    except (OSError, ValueError) as error:
        raise not_loadable(folder, error) from error


def load_weights(folder: ModelFolder, plan: LoadPlan, cancelled: threading.Event) -> Any:
    """Bring the weights into memory; takes seconds. Raises ModelNotFound, OutOfMemory, Rejected or Cancelled."""
    transformers_logging.disable_progress_bar()
    try:
        model = _read(folder, plan)
        check(cancelled)
        if plan.quantization == "int8" and plan.device == "cpu":
            from providers.int8 import to_int8

            for _ in to_int8(model):
                check(cancelled)
        if plan.quantization == "nf4":
            # bitsandbytes packs weights at the first token and unpacks them for an adapter, whose base then changes.
            for module in model.modules():
                if hasattr(module, "support_avx512bf16_for_cpu"):
                    module.support_avx512bf16_for_cpu = False
        if plan.device == "cpu":
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.detach().view(-1)[::PAGE_BYTES].sum()
                check(cancelled)
            give_back_memory()
        return model.eval()
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise out_of_memory(folder.path.name) from error
    except ProviderError:
        raise
    except Exception as error:
        raise not_loadable(folder, error) from error


def not_loadable(folder: ModelFolder, error: Exception) -> ModelNotFound:
    """Return the error for a folder whose model cannot be loaded."""
    return ModelNotFound(
        say("The model in {folder} cannot be loaded: {reason}.", folder=folder.path.name, reason=first_line(error)),
        provider="transformers",
        hint=say("Check that its files are whole and that its architecture is one that transformers knows."),
    )


def check(cancelled: threading.Event) -> None:
    """Raise Cancelled once the person does not want the model any more."""
    if cancelled.is_set():
        raise Cancelled(say("The loading was cancelled."), provider="transformers")


@contextlib.contextmanager
def measuring(device: str) -> Iterator[Callable[[], int]]:
    """Give a function that says by how many bytes this process, or what it holds on a GPU, has grown."""
    give_back_memory()
    before = _held(device)
    yield lambda: max(0, _held(device) - before)


def give_back_memory() -> None:
    """Give the system what freed weights have left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, short enough for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def out_of_memory(model: str) -> OutOfMemory:
    """Return the error for a model that did not fit after all."""
    return OutOfMemory(
        say("There is not enough memory for {model}.", model=model),
        provider="transformers",
        hint=say("Choose a smaller model, or close other programs."),
    )


def _read(folder: ModelFolder, plan: LoadPlan) -> Any:
    special: dict[str, Any] = {}
    dtype = getattr(torch, plan.precision)
    if plan.quantization == "nf4":
        special["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    elif plan.quantization == "int8" and plan.device != "cpu":
        special["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    elif plan.quantization == "int8":
        dtype = "auto"  # As the file has them, and so not read before they are made smaller one by one.
    auto = AutoModelForImageTextToText if sees(folder) else AutoModelForCausalLM
    model, report = auto.from_pretrained(
        folder.path,
        dtype=dtype,
        device_map="auto" if plan.device == "spread" else torch.device(plan.device),
        attn_implementation=plan.attention,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        **special,
    )
    if report["missing_keys"]:
        raise ValueError(f"{len(report['missing_keys'])} of its weights are missing")
    return model


def _device(wanted: str) -> str:
    if wanted == "spread":
        if not torch.cuda.is_available():
            raise Rejected(
                say("There is no GPU to spread a model over."),
                provider="transformers",
                hint=say("Choose the device auto or cpu."),
            )
        return wanted
    device = choose_device(wanted)
    number = device.index or 0
    if device.type == "cuda" and not number < torch.cuda.device_count():
        raise Rejected(
            say("There is no device {device} here.", device=wanted),
            provider="transformers",
            hint=say("Choose the device auto or cpu."),
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise Rejected(
            say("There is no device {device} here.", device=wanted),
            provider="transformers",
            hint=say("Choose the device auto or cpu."),
        )
    return f"cuda:{number}" if device.type == "cuda" else device.type


def _format(kind: str, sizes: Sizes, options: LoadOptions) -> tuple[str, str, Sentence]:
    """Return precision, quantization and the reason."""
    default = str(choose_precision(torch.device("cuda" if kind == "spread" else kind))).removeprefix("torch.")
    wanted = PRECISION_NAMES.get(options.precision, default)
    if options.quantization not in ("auto", "none"):
        if options.quantization not in _quantizations(kind, sizes):
            raise Rejected(
                say("This model cannot be loaded with quantization {name} here.", name=options.quantization),
                provider="transformers",
                hint=say("Choose quantization auto or none."),
            )
        if options.quantization == "int8" and kind == "cpu":
            wanted = "bfloat16"  # The kernel's own.
        return wanted, options.quantization, say("Quantization {name}, as chosen.", name=options.quantization)
    if options.precision != "auto":
        return wanted, "none", say("Precision {name}, as chosen.", name=options.precision)
    if kind != "cpu":
        return wanted, "none", say("{precision} is what this GPU computes fastest.", precision=SHORT_NAMES[wanted])
    if sizes.weights < LARGE:
        return (
            wanted,
            "none",
            say("{precision}: so small a model gains nothing from fewer bits.", precision=SHORT_NAMES[wanted]),
        )
    seconds = chat_seconds()
    plain = min(("float32", "bfloat16"), key=lambda name: seconds[name])
    if seconds[wanted] < CLEARLY_FASTER * seconds[plain]:
        plain = wanted
    gain = seconds[plain] / seconds["int8"]
    if options.quantization == "auto" and sizes.takes_int8 and gain >= CLEARLY_FASTER:
        return (
            "bfloat16",
            "int8",
            say(
                "8-bit weights: a chat is {gain} times as fast with them on this processor as with {plain}.",
                gain=f"{gain:.1f}",
                plain=SHORT_NAMES[plain],
            ),
        )
    return plain, "none", say("{precision} is the fastest on this processor.", precision=SHORT_NAMES[plain])


def _quantizations(device: str, sizes: Sizes) -> list[str]:
    kind = device.split(":")[0]
    if kind == "mps":
        return ["none"]
    return ["none", *(["int8"] if kind != "cpu" or sizes.takes_int8 else []), "nf4"]


def _own_name(plan: LoadPlan) -> str:
    return "bnb-int8" if plan.quantization == "int8" and plan.device != "cpu" else plan.quantization


def _total(plan: LoadPlan, sizes: Sizes, length: int) -> int:
    size = 4 if plan.precision == "float32" else 2
    return (
        weight_bytes(sizes, plan.precision, _own_name(plan))
        + kv_bytes(sizes.config, length, size)
        + overhead_bytes(sizes, length, size)
    )


def _shorter(length: int) -> list[int]:
    return [each for each in (32_768, 16_384, 8192, 4096, 2048) if each < length]


def _held(device: str) -> int:
    if device == "cpu" or not torch.cuda.is_available():
        return process_bytes()
    return sum(torch.cuda.memory_allocated(number) for number in range(torch.cuda.device_count()))
