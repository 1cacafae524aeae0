"""Other engines on loopback, asked as a client asks them: `transformers serve`, and llama.cpp's server."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.settings import ROOT, Settings
from providers.gguf_files import GgufFile
from providers.llama_cpp_engine import start_engine
from providers.openai import OpenAIProvider
from providers.types import Endpoint, LoadOptions
from tests.serving import transformers_serve
from training.export import export_gguf


@asynccontextmanager
async def serve_client(model: str, dtype: str) -> AsyncIterator[OpenAIProvider]:
    """Run `transformers serve` with a model folder; yield OpenAI's client for it."""
    with tempfile.TemporaryDirectory() as cache, transformers_serve(model, Path(cache), "--dtype", dtype) as url:
        client = OpenAIProvider(replace(Settings().for_providers(), endpoint=Endpoint("serve", "openai", url)), _alone)
        yield client
        await client.aclose()


@asynccontextmanager
async def llama_client(file: Path, slots: int, threads: int) -> AsyncIterator[OpenAIProvider]:
    """Run llama.cpp's server with a GGUF file and so many slots; yield OpenAI's client for it."""
    settings = replace(Settings().for_providers(), parallel_answers=slots)
    options = LoadOptions(device="cpu", threads=threads)
    engine = await start_engine(GgufFile(file.stem, file, "folder"), options, settings)
    yield engine.api
    await engine.aclose()


def random_llama(folder: Path, dimensions: dict[str, Any]) -> tuple[Path, Path]:
    """Make a model of these dimensions with the starter's tokenizer and random weights, and its GGUF in f16.

    llama.cpp takes no tokenizer of whole words, as that of `random_model` is. Tokens that end an answer, or are no text
    by themselves, are never the likeliest.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer: Any = AutoTokenizer.from_pretrained(ROOT / "models" / "starter")
    config: Any = LlamaConfig(
        **dimensions | {"vocab_size": len(tokenizer)},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    silent = [number for number in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([number])]
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[[*silent, *tokenizer.all_special_ids]] = 0
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model", export_gguf(folder / "model", folder / "model.gguf", "f16")


def _alone(name: str) -> Any:
    raise KeyError(name)
