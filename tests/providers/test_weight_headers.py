"""Headers of weights, whole, cut off and mutated: what does not add up is refused with a sentence, and nothing else."""

from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path

import pytest

from providers.errors import ProviderError
from providers.llama_cpp import LlamaCppProvider
from providers.sentences import say
from providers.transformers_local import TransformersProvider
from providers.types import ChatRequest, Finished, Message, Parameters, ProviderSettings
from providers.weight_headers import gguf_header, safetensors_header
from tests.tiny_models import make_mergeable_model
from training.export import export_gguf

MUTANTS = 50
GGUF_MUTANTS = 200


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    export_gguf(make_mergeable_model(folder / "model"), folder / "tiny.gguf")
    return folder / "tiny.gguf"


@pytest.fixture
def settings_with(tmp_path: Path, models_dir: Path) -> ProviderSettings:
    shutil.copytree(models_dir / "tiny", tmp_path / "models" / "good")
    return ProviderSettings(bundled_dir=tmp_path, models_dir=tmp_path / "models", runs_dir=tmp_path / "runs")


def mutated(data: bytes, header: int, number: int) -> bytes:
    """Return the bytes with a few of the header's changed, or cut off, or with another length, in turn."""
    chance = random.Random(number)
    changed = bytearray(data)
    match number % 4:
        case 0:
            return data[: chance.randrange(header)]
        case 1:
            changed[:8] = struct.pack("<Q", chance.choice([0, 1, header - 9, 2**31, 2**63, 2**64 - 1]))
        case 2:
            for _ in range(chance.randint(1, 20)):
                changed[chance.randrange(8, header)] = chance.randrange(256)
        case _:
            return data[: chance.randrange(header, len(data))]
    return bytes(changed)


def test_the_header_tells_what_safetensors_itself_tells(models_dir: Path) -> None:
    from safetensors import safe_open

    file = models_dir / "tiny" / "model.safetensors"
    with safe_open(file, "pt") as opened:
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118

    assert {tensor.name: tensor.shape for tensor in safetensors_header([file])} == shapes


async def test_mutated_safetensors_say_why_and_the_others_go_on_answering(settings_with: ProviderSettings) -> None:
    provider = TransformersProvider(settings_with)
    await provider.load("good")
    data = (settings_with.models_dir / "good" / "model.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    refused: list[ProviderError] = []
    for number in range(MUTANTS):
        bad = settings_with.models_dir / f"bad{number}"
        shutil.copytree(settings_with.models_dir / "good", bad)
        (bad / "model.safetensors").write_bytes(mutated(data, header, number))
        try:
            await provider.load(bad.name)
            await provider.unload(bad.name)
        except ProviderError as error:
            refused.append(error)
        shutil.rmtree(bad)

    assert len(refused) >= MUTANTS * 3 // 4
    assert all(str(error.message).endswith(".") and error.hint for error in refused)
    request = ChatRequest("good", (Message("user", "Hello"),), Parameters(max_tokens=3, temperature=0.0))
    *_, last = [event async for event in provider.stream(request)]
    assert isinstance(last, Finished)
    assert last.usage.completion_tokens > 0
    await provider.aclose()


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
        {"a": {"dtype": "X", "shape": [1], "data_offsets": [0, 4]}},
        dict.fromkeys("ab", {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
        {"a": {"dtype": "F32", "shape": [2**61], "data_offsets": [0, 2**63]}},
        {"a": []},
        [],
    ],
)  # fmt: skip
def test_a_header_that_does_not_add_up_is_refused(tmp_path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)

    with pytest.raises(ValueError, match="x.safetensors|tensor"):
        safetensors_header([tmp_path / "x.safetensors"])


def test_a_header_nested_without_end_is_refused(tmp_path: Path) -> None:
    text = b'{"a":' * 100_000
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)

    with pytest.raises(ValueError, match="x.safetensors|JSON|Expecting"):
        safetensors_header([tmp_path / "x.safetensors"])


def test_the_facts_of_a_gguf_file_are_read(gguf: Path) -> None:
    facts = gguf_header(gguf)

    assert facts["general.architecture"] == "llama"
    assert facts["llama.block_count"] == 2
    assert facts["llama.embedding_length"] == 64


async def test_mutated_gguf_headers_say_why(gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    settings = ProviderSettings(bundled_dir=tmp_path, models_dir=tmp_path / "models", runs_dir=tmp_path / "runs")
    provider = LlamaCppProvider(settings)
    data = gguf.read_bytes()
    outcomes = []
    for number in range(GGUF_MUTANTS):
        (tmp_path / "models" / "bad.gguf").write_bytes(mutated(data, 2_000, number))
        try:
            outcomes.append((await provider.estimate("bad")).weights_bytes > 0)
        except ProviderError as error:
            outcomes.append(str(error.message) != str(say("")) and str(error.message).endswith("."))
    await provider.aclose()

    assert outcomes == [True] * GGUF_MUTANTS


@pytest.mark.long
async def test_mutated_gguf_files_end_their_own_process_only(gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    shutil.copy(gguf, tmp_path / "models" / "good.gguf")
    settings = ProviderSettings(bundled_dir=tmp_path, models_dir=tmp_path / "models", runs_dir=tmp_path / "runs")
    provider = LlamaCppProvider(settings)
    data = gguf.read_bytes()
    refused = []
    for number in range(GGUF_MUTANTS):
        (tmp_path / "models" / "bad.gguf").write_bytes(mutated(data, 2_000, number))
        try:
            await provider.load("bad")
            await provider.unload("bad")
        except ProviderError as error:
            refused.append(str(error.message))

    assert len(refused) >= GGUF_MUTANTS // 2
    assert all(message.endswith(".") for message in refused)
    assert (await provider.load("good")).memory_bytes > 0
    await provider.aclose()
