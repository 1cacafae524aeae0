"""How much memory a model takes: weights by the headers of its files, KV cache by its configuration, and overhead.

The overheads are measured (`python -m benchmarks.memory`); what a model really took stands beside the estimate after it
was loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from providers.weight_headers import FLOATING, Tensor

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4_BYTES = 0.5 + 4 / 64  # bitsandbytes keeps an fp32 maximum for each 64 weights.
SCALE_BYTES = 2
RUNTIME_BYTES = 40_000_000
TOKEN_BYTES, COUNTED_TOKENS = 12_000, 6144  # beside the cache; from there on it hardly grows
GGUF_RUNTIME_BYTES = 90_000_000
USUAL_PIECE = 768  # tokens that a processor computes in the time that a step has
EMBEDDING_WORDS = ("embed", "wte", "wpe")
OUTPUT_WORDS = ("lm_head", "embed_out")
CONVOLVED = frozenset({"gpt2", "openai-gpt"})  # Their layers are Conv1D, which our int8 does not replace.
MOST = 100_000_000


@dataclass(frozen=True)
class Sizes:
    """The dimensions that decide over memory. Weights are counted in numbers, not in bytes.

    `linear` are those of layers that can be quantized, `output` those of an output layer of its own, and `embedding`
    those of the input embedding, which is the output too where `output` is 0; `other` is all else.
    """

    linear: int
    output: int
    embedding: int
    other: int
    scales: int
    hidden: int
    intermediate: int
    vocabulary: int
    config: Mapping[str, Any]

    @property
    def weights(self) -> int:
        """The number of all weights."""
        return self.linear + self.output + self.embedding + self.other

    @property
    def takes_int8(self) -> bool:
        """Whether its layers are ones that `providers.int8` replaces."""
        return self.config.get("model_type") not in CONVOLVED and self.linear > 0


def sizes_of(tensors: Iterable[Tensor], config: Mapping[str, Any]) -> Sizes:
    """Count the weights of a model."""
    linear = output = embedding = other = scales = 0
    for tensor in tensors:
        is_matrix = len(tensor.shape) == 2 and tensor.dtype in FLOATING and tensor.name.endswith("weight")
        if is_matrix and any(word in tensor.name for word in OUTPUT_WORDS):
            output += tensor.numbers
            scales += tensor.shape[0]
        elif is_matrix and any(word in tensor.name for word in EMBEDDING_WORDS):
            embedding += tensor.numbers
        elif is_matrix and ".experts." not in tensor.name:
            linear += tensor.numbers
            scales += tensor.shape[0]
        else:
            other += tensor.numbers
    text = text_config(config)
    hidden = whole(text, "hidden_size", "n_embd", "d_model")
    return Sizes(
        linear=linear,
        output=output,
        embedding=embedding,
        other=other,
        scales=scales,
        hidden=hidden,
        intermediate=whole(text, "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden),
        vocabulary=whole(text, "vocab_size"),
        config=config,
    )


def weight_bytes(sizes: Sizes, precision: str, quantization: str) -> int:
    """Return the bytes of the weights as they will lie in memory."""
    size = BYTES[precision]
    plain = sizes.other + sizes.embedding
    if quantization == "int8":
        tied = sizes.embedding if not sizes.output else 0
        return sizes.linear + sizes.output + tied + (plain - tied) * size + sizes.scales * SCALE_BYTES
    if quantization == "bnb-int8":
        return sizes.linear + (plain + sizes.output) * size + sizes.scales * 4
    if quantization == "nf4":
        return int(sizes.linear * NF4_BYTES) + (plain + sizes.output) * size
    return sizes.weights * size


def kv_bytes(config: Mapping[str, Any], context_length: int, number_bytes: int) -> int:
    """Return the bytes of the keys and values of one conversation of `context_length` tokens.

    Grouped heads, heads of a size of their own, latent attention and sliding windows count as transformers keeps them.
    """
    text = text_config(config)
    layers = whole(text, "num_hidden_layers", "n_layer", "num_layers")
    heads = whole(text, "num_attention_heads", "n_head")
    grouped = 1 if text.get("multi_query") is True else heads
    kv_heads = whole(text, "num_key_value_heads", "num_kv_heads", default=grouped)
    if "kv_lora_rank" in text and "v_head_dim" in text:
        key = whole(text, "qk_nope_head_dim") + whole(text, "qk_rope_head_dim")
        per_token = heads * (key + whole(text, "v_head_dim"))
    else:
        head = whole(text, "head_dim", default=whole(text, "hidden_size", "n_embd", "d_model") // max(1, heads))
        per_token = 2 * kv_heads * head
    window = text.get("sliding_window")
    near = min(context_length, window) if isinstance(window, int) and window > 0 else context_length
    tokens = sum(
        {"full_attention": context_length, "sliding_attention": near, "chunked_attention": context_length}.get(kind, 0)
        for kind in _layer_kinds(text, layers)
    )
    return tokens * per_token * number_bytes


def _layer_kinds(text: Mapping[str, Any], layers: int) -> list[str]:
    named = text.get("layer_types")
    if isinstance(named, list) and len(named) == layers:
        return [str(kind) for kind in named]
    pattern = 2 if text.get("model_type") == "gemma2" else text.get("sliding_window_pattern")
    if isinstance(pattern, int) and pattern > 0:
        return ["sliding_attention" if (number + 1) % pattern else "full_attention" for number in range(layers)]
    slides = isinstance(text.get("sliding_window"), int) and text.get("use_sliding_window") is not False
    return ["sliding_attention" if slides else "full_attention"] * layers


def overhead_bytes(sizes: Sizes, context_length: int, number_bytes: int) -> int:
    """Return what computing takes beside weights and cache: the runtime, and the largest piece of a prompt.

    A longer prompt is read in pieces; models that see read it whole.
    """
    piece = context_length if "vision_config" in sizes.config else min(context_length, USUAL_PIECE)
    per_token = 3 * sizes.intermediate + 6 * sizes.hidden
    computing = piece * per_token * number_bytes + min(context_length, COUNTED_TOKENS) * TOKEN_BYTES
    return RUNTIME_BYTES + computing + 2 * sizes.vocabulary * 4


def gguf_kv_bytes(facts: Mapping[str, Any], context_length: int) -> int:
    """Return the bytes of llama.cpp's cache, in fp16, for a file with these facts."""
    name = facts.get("general.architecture")
    part = {key.removeprefix(f"{name}."): value for key, value in facts.items() if key.startswith(f"{name}.")}
    layers, width = whole(part, "block_count"), whole(part, "embedding_length")
    heads = whole(part, "attention.head_count", default=1)  # Some files have a list, one for each layer.
    kv_heads = whole(part, "attention.head_count_kv", default=heads)
    key = whole(part, "attention.key_length", default=width // max(1, heads))
    value = whole(part, "attention.value_length", default=key)
    return layers * kv_heads * (key + value) * 2 * context_length


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a configuration that is the language model's."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def whole(part: Mapping[str, Any], *names: str, default: int = 0) -> int:
    """Return the first of these that is a sensible whole number."""
    for name in names:
        value = part.get(name)
        if type(value) is int and 0 < value <= MOST:
            return value
    return default
