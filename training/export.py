"""A transformers model as one GGUF file for llama.cpp and Ollama: `python -m training.export SOURCE TARGET`.

Source: the GGUF specification (docs/gguf.md of the ggml repository); the names of the tensors are gguf's own table.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from core.errors import InvalidRequest
from providers.sentences import say
from training.gguf_tokenizer import GgufTokenizer, read_tokenizer

FileType = Literal["f32", "f16", "q8_0"]
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
BLOCK = 32


def export_gguf(source: Path, target: Path, file_type: FileType = "f16", adapter: Path | None = None) -> Path:
    """Write the model in the folder `source`, with a LoRA adapter merged into it where one is given.

    The file appears when it is whole. Raises InvalidRequest for an architecture, a tokenizer or an adapter that cannot
    be written, and OSError.
    """
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    architecture = ARCHITECTURES.get(config.get("model_type"))
    if architecture is None:
        raise _refused(str(config.get("model_type")))
    if (config.get("rope_parameters") or {}).get("rope_type", "default") != "default" or config.get("rope_scaling"):
        raise _refused(f"{architecture}, with scaled positions")
    tokenizer = read_tokenizer(source, config["vocab_size"])
    added = merged_weights(adapter) if adapter else {}
    making = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        _write(making, source.name, config, architecture, tokenizer, file_type, _tensors(source, added))
        with making.open("rb") as file:
            os.fsync(file.fileno())
        making.replace(target)
    finally:
        making.unlink(missing_ok=True)
    return target


def merged_weights(adapter: Path) -> dict[str, Any]:
    """Return what a LoRA adapter adds to each weight, by the weight's name, in float32: B·A·scaling.

    Source: Hu et al. 2021, arXiv:2106.09685; the scaling of rank-stabilised LoRA is that of Kalajdzievski 2023,
    arXiv:2312.03732.
    """
    from safetensors.torch import load_file

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    plain = config.get("peft_type") == "LORA" and not config.get("use_dora") and not config.get("modules_to_save")
    if not plain or config.get("bias", "none") != "none" or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise InvalidRequest(
            say("The adapter in {folder} is no plain LoRA, which alone can be merged here.", folder=adapter.name),
            say("Merge it with PEFT, then export the merged model."),
        )
    rank, alpha = config["r"], config["lora_alpha"]
    scaling = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    tensors = load_file(adapter / "adapter_model.safetensors")
    added = {}
    for name, down in tensors.items():
        if name.endswith(".lora_A.weight"):
            up = tensors[name.replace(".lora_A.", ".lora_B.")]
            weight = name.removeprefix("base_model.model.").replace(".lora_A", "")
            added[weight] = scaling * (up.float() @ down.float())
    return added


def _tensors(source: Path, added: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every tensor by its name in transformers, in float32, one at a time."""
    from safetensors import safe_open

    left = set(added)
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # It is no dict.
                left.discard(name)
                yield name, (tensors.get_tensor(name).float() + added.get(name, 0)).numpy()
    if left:
        raise _incomplete(sorted(left)[0])


def _write(
    target: Path,
    name: str,
    config: dict[str, Any],
    architecture: str,
    tokenizer: GgufTokenizer,
    file_type: FileType,
    tensors: Iterator[tuple[str, Any]],
) -> None:
    import gguf

    writer = gguf.GGUFWriter(target, architecture)
    try:
        _describe(writer, name, config, tokenizer, gguf.LlamaFileType[FILE_TYPES[file_type]])
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config["num_hidden_layers"])
        arrange = _permuted(config) if architecture == "llama" else _as_it_is
        found = set()
        for theirs, array in tensors:
            ours = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
            if ours is None:
                raise _incomplete(theirs)
            found.add(ours)
            _add(writer, ours, arrange(theirs, array), file_type)
        wanted = {"token_embd.weight", "output_norm.weight"} | {
            f"blk.{layer}.{part}.weight"
            for layer in range(config["num_hidden_layers"])
            for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "attn_norm")
        }
        if missing := sorted(wanted - found):
            raise _incomplete(missing[0])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _describe(writer: Any, name: str, config: dict[str, Any], tokenizer: GgufTokenizer, file_type: int) -> None:
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    rope = (config.get("rope_parameters") or {}).get("rope_theta") or config.get("rope_theta") or 10_000.0
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(rope)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(list(tokenizer.tokens))
    writer.add_token_types(list(tokenizer.kinds))
    writer.add_token_merges(list(tokenizer.merges))
    for role, number in tokenizer.special.items():
        getattr(writer, f"add_{role}_token_id")(number)
    writer.add_add_bos_token(tokenizer.add_bos)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _add(writer: Any, name: str, array: Any, file_type: FileType) -> None:
    import gguf
    import numpy

    if array.ndim == 1 or file_type == "f32":
        writer.add_tensor(name, array.astype(numpy.float32))
    elif file_type == "q8_0" and array.shape[-1] % BLOCK == 0:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(array.astype(numpy.float32), kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, array.astype(numpy.float16))


def _permuted(config: dict[str, Any]) -> Callable[[str, Any], Any]:
    """Return how llama.cpp wants Llama's queries and keys: the two halves of each rotated pair beside each other."""
    heads = {
        "q_proj.weight": config["num_attention_heads"],
        "k_proj.weight": config.get("num_key_value_heads") or config["num_attention_heads"],
    }

    def arrange(name: str, array: Any) -> Any:
        count = next((count for end, count in heads.items() if name.endswith(end)), None)
        if count is None:
            return array
        halves = array.reshape(count, 2, array.shape[0] // count // 2, *array.shape[1:])
        return halves.swapaxes(1, 2).reshape(array.shape)

    return arrange


def _as_it_is(name: str, array: Any) -> Any:
    return array


def _refused(kind: str) -> InvalidRequest:
    return InvalidRequest(
        say("Models of the kind {kind} cannot be written as GGUF here.", kind=kind),
        say("Llama, Qwen2 and Qwen3 can; for others use llama.cpp's own convert_hf_to_gguf.py."),
    )


def _incomplete(tensor: str) -> InvalidRequest:
    return InvalidRequest(
        say("The weights do not fit the model: {tensor} has no place or is missing.", tensor=tensor),
        say("Check that its files are whole."),
    )


def main() -> None:
    """Read the arguments and write the file."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="the folder of a transformers model")
    parser.add_argument("target", type=Path, help="the GGUF file to write")
    parser.add_argument("--type", choices=tuple(FILE_TYPES), default="f16", help="%(default)s")
    parser.add_argument("--adapter", type=Path, help="the folder of a LoRA adapter to merge")
    options = parser.parse_args()
    print(export_gguf(options.source, options.target, options.type, options.adapter))


if __name__ == "__main__":
    main()
