"""A model with random weights, whose every token is one ASCII word that starts a new text.

So each token is visible at once, none ends the answer, and spaces count tokens.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

VERSION = 1
# As Llamas: Qwen3's norms of queries and keys, which cost next to nothing, are left out.
SMOLLM2_135M: dict[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
QWEN3_06B: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
ROLES = ("system", "user", "assistant")
TEMPLATE = (
    "{% for message in messages %} {{ message['role'] }} {{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} assistant{% endif %}"
)


def random_model(dimensions: dict[str, Any] = SMOLLM2_135M) -> Path:
    """Return the folder of a model with these dimensions in the user's cache, made on first use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simpleia-benchmarks"
    folder = cache / f"random-{dimensions['hidden_size']}-{VERSION}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=cache))
        try:
            _make(making, dimensions)
            making.rename(folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return folder


def question(seed: int, words: int) -> str:
    """Return a text of `words` tokens of the model; no two seeds give the same, so no cache can answer."""
    return " ".join(random.Random(seed).choices(_words(SMOLLM2_135M["vocab_size"]), k=words))


def tokens_in(text: str) -> int:
    """Count the tokens that the model wrote `text` with."""
    return text.count(" ")


def _words(vocabulary: int) -> list[str]:
    """Return as many different words as the vocabulary has room for beside the roles."""
    syllables = ["".join(pair) for pair in itertools.product(CONSONANTS, VOWELS)]
    words = ("".join(parts) for parts in itertools.product(syllables, repeat=3))
    return list(itertools.islice(words, vocabulary - len(ROLES)))


def _make(folder: Path, dimensions: dict[str, Any]) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config: Any = LlamaConfig(
        **dimensions,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    _save_tokenizer(folder, _words(dimensions["vocab_size"]))


def _save_tokenizer(folder: Path, words: list[str]) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = [f"Ġ{word}" for word in (*ROLES, *words)]
    tokenizer: Any = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, tokens[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}), encoding="utf-8"
    )
