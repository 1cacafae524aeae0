"""Which folders are models, and which are refused with which reason, before any of their code could run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.settings import ROOT
from providers.errors import ModelNotFound, Unreachable
from providers.local_folders import MAX_CONFIG_BYTES, model_folders_under, open_model_folder
from providers.transformers_local import TransformersProvider
from providers.types import ChatRequest, LoadOptions, Message, Parameters, ProviderSettings, TextDelta
from tests.tiny_models import change_config, make_chat_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a model: its weights hold nothing."""
    model = tmp_path / "models" / "mine"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    (model / "model.safetensors").write_bytes(b"12345")
    return model


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[TransformersProvider]:
    """A provider whose own folder is `tmp_path/models`."""
    provider = TransformersProvider(
        ProviderSettings(
            bundled_dir=ROOT / "models",
            models_dir=tmp_path / "models",
            runs_dir=tmp_path / "runs",
            load_options=LoadOptions(device="cpu"),
        )
    )
    yield provider
    await provider.aclose()


def refused(folder: Path) -> str:
    with pytest.raises(ModelNotFound) as error:
        open_model_folder(folder)
    assert error.value.hint is not None
    assert str(folder.parent) not in str(error.value), "the sentence tells where things lie on the server"
    return str(error.value)


def test_a_model_folder_is_described(folder: Path) -> None:
    (folder / "model-2.safetensors").write_bytes(b"123")
    opened = open_model_folder(folder)

    assert opened.path == folder
    assert opened.size_bytes == 8
    assert opened.config["model_type"] == "llama"


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"n_ctx": 512}, 512),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"text_config": None}, 2048),
        ({"max_position_embeddings": None}, 2048),
        ({"max_position_embeddings": "many"}, 2048),
        ({"max_position_embeddings": -1}, 2048),
        ({}, 2048),
    ],
)
def test_the_context_length_has_many_names(folder: Path, config: dict[str, Any], context: int) -> None:
    change_config(folder, **config)

    assert open_model_folder(folder).context_length == context


def test_no_folder_and_no_config(tmp_path: Path) -> None:
    assert "is no model: it has no config.json" in refused(tmp_path / "nothing")
    assert "is no model: it has no config.json" in refused(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"text"', "3", "[" * 100_000, '{"a": 1}garbage', "\ufeff{}", "NaN"]
)
def test_a_broken_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)

    assert "config.json in mine cannot be read" in refused(folder)


def test_a_config_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe\x00{}")

    assert "cannot be read" in refused(folder)


def test_a_huge_config_is_refused_unread(folder: Path) -> None:
    with (folder / "config.json").open("wb") as file:
        file.truncate(200 * MAX_CONFIG_BYTES)

    assert "cannot be read" in refused(folder)


def test_a_config_that_is_a_folder_is_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()

    assert "has no config.json" in refused(folder)


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"])
def test_pickles_only_are_refused_by_name(folder: Path, pickle: str) -> None:
    (folder / "model.safetensors").rename(folder / pickle)

    assert "only as pickle files, which can run foreign code. Convert them to safetensors" in refused(folder)


def test_no_weights_at_all_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()

    assert "holds no safetensors weights" in refused(folder)


def test_weights_that_are_a_dead_link_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "blobs" / "gone")

    assert "safetensors" in refused(folder)


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "CLIPModel", "WhisperForAudioClassification"])
def test_what_does_not_write_text_is_refused(folder: Path, architecture: str) -> None:
    change_config(folder, architectures=[architecture])

    assert f"does not write text: its architecture is {architecture}" in refused(folder)


@pytest.mark.parametrize("architectures", [5, True, "LlamaForCausalLM", {"a": 1}, [None], [["x"]]])
def test_architectures_of_a_strange_shape_break_nothing(folder: Path, architectures: Any) -> None:
    change_config(folder, architectures=architectures)
    with contextlib.suppress(ModelNotFound):
        assert open_model_folder(folder).path == folder


def test_models_are_found_one_and_two_levels_down(folder: Path, tmp_path: Path) -> None:
    two_down = tmp_path / "models" / "owner" / "name"
    three_down = two_down / "checkpoint" / "deep"
    three_down.mkdir(parents=True)
    for place in (two_down, three_down):
        (place / "config.json").write_text("{}")

    assert [name for name, _ in model_folders_under(tmp_path / "models")] == ["mine", "owner/name"]
    assert list(model_folders_under(tmp_path / "nowhere")) == []


async def test_one_bad_folder_does_not_hide_the_others(
    folder: Path, tmp_path: Path, provider: TransformersProvider
) -> None:
    for name, config in {"a": "{", "b": '{"architectures": 5}', "c": '{"architectures": ["LlamaForCausalLM"]}'}.items():
        (tmp_path / "models" / name).mkdir()
        (tmp_path / "models" / name / "config.json").write_text(config)
        (tmp_path / "models" / name / "model.safetensors").symlink_to("gone")

    assert "mine" in [model.name for model in await provider.list_models()]


@pytest.mark.parametrize(
    "name",
    [
        "../mine",
        "../../etc/passwd",
        "a/../mine",
        "a/../../mine",
        "mine/..",
        "..",
        ".",
        "/etc",
        "/proc/self",
        "~/..",
        "C:\\models",
        "mine\0",
        "file:///etc",
        "owner/name/more",
        "-mine",
        "owner//name",
    ],
)
async def test_names_that_climb_or_are_none_are_refused(
    folder: Path, provider: TransformersProvider, name: str
) -> None:
    with pytest.raises(ModelNotFound) as error:
        await provider.load(name)
    assert error.value.hint is not None


@pytest.mark.parametrize(
    "name", ["~nobody-of-this-name", "~nobody-of-this-name/model", "/" + "x" * 5000, "./" + "x" * 300]
)
async def test_folders_that_cannot_even_be_looked_for_are_refused(provider: TransformersProvider, name: str) -> None:
    with pytest.raises(ModelNotFound):
        await provider.find_model(name)


async def test_a_model_that_is_nowhere_and_no_network(provider: TransformersProvider, tries_network: None) -> None:
    with pytest.raises(Unreachable, match="nobody/nothing is not on this machine"):
        await provider.load("nobody/nothing")


@pytest.mark.parametrize("model_type", ["llama", "canary"])
async def test_code_in_a_folder_is_never_run(tmp_path: Path, provider: TransformersProvider, model_type: str) -> None:
    folder = make_chat_model(tmp_path / "models" / "trap")
    canary = tmp_path / "the canary sang"
    (folder / "canary.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    (folder / "setup.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    classes = {name: f"canary.{name}" for name in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")}
    change_config(folder, auto_map=classes, model_type=model_type)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"auto_map": {"AutoTokenizer": ["canary.AutoTokenizer", None]}, "tokenizer_class": "Canary"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with contextlib.suppress(ModelNotFound):
        await provider.load("trap")

    assert not canary.exists()


async def test_a_pickle_beside_safetensors_is_not_opened(tmp_path: Path, provider: TransformersProvider) -> None:
    folder = make_chat_model(tmp_path / "models" / "both")
    canary = tmp_path / "the canary sang"
    command = f"touch {str(canary)!r}".encode()
    pickle = b"cos\nsystem\n(S" + repr(command.decode()).encode() + b"\ntR."
    for name in ("pytorch_model.bin", "training_args.bin", "model.pt"):
        (folder / name).write_bytes(pickle)

    assert (await provider.load("both")).name == "both"
    assert not canary.exists()


async def test_a_template_cannot_reach_out_of_its_sandbox(tmp_path: Path, provider: TransformersProvider) -> None:
    folder = make_chat_model(tmp_path / "models" / "template")
    canary = tmp_path / "the canary sang"
    escape = (
        "{{ ().__class__.__base__.__subclasses__() }}"
        f"{{{{ cycler.__init__.__globals__.os.system('touch {str(canary)!r}') }}}}"
    )
    (folder / "chat_template.jinja").write_text(escape)
    request = ChatRequest("template", (Message("user", "hi"),), Parameters(max_tokens=1))
    with pytest.raises(Exception, match="chat template cannot format"):
        [event async for event in provider.stream(request)]

    assert not canary.exists()


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("tokenizer.json", b"{", "no tokenizer that can be read"),
        ("tokenizer.json", None, "no tokenizer that can be read"),
        ("model.safetensors", b"", "cannot be loaded"),
        ("model.safetensors", b"\xff" * 64, "cannot be loaded"),
    ],
)
async def test_a_half_downloaded_model_is_refused(
    tmp_path: Path, provider: TransformersProvider, file: str, content: bytes | None, sentence: str
) -> None:
    folder = make_chat_model(tmp_path / "models" / "half")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(ModelNotFound, match=sentence) as error:
        await provider.load("half")

    assert str(tmp_path) not in str(error.value)
    assert error.value.hint is not None


async def test_an_unreadable_folder_is_refused(tmp_path: Path, provider: TransformersProvider) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    folder = make_chat_model(tmp_path / "models" / "locked")
    folder.chmod(0)
    try:
        with pytest.raises(ModelNotFound):
            await provider.load("locked")
    finally:
        folder.chmod(0o755)


async def test_a_folder_is_found_by_its_path_and_answers(tmp_path: Path, provider: TransformersProvider) -> None:
    folder = make_chat_model(tmp_path / "elsewhere")
    request = ChatRequest(str(folder), (Message("user", "hi"),), Parameters(max_tokens=40, temperature=0))
    events = [event async for event in provider.stream(request)]

    assert (await provider.find_model(str(folder))).source == "folder"
    assert any(isinstance(event, TextDelta) for event in events)
