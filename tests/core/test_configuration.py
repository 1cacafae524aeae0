"""The services that the configuration names, and whose key goes to which address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.configuration import Configuration, ConfigurationError, read_configuration
from core.settings import ROOT, Settings, SettingsError
from providers.types import Endpoint

KEY = "sk-canary-0123456789"
VLLM = {"name": "vllm", "base_url": "http://127.0.0.1:8000/v1", "api_key_env": "VLLM_API_KEY", "context_length": 8192}


def read(tmp_path: Path, *files: dict[str, Any], **env: str) -> Configuration:
    paths = []
    for number, data in enumerate(files):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(data), encoding="utf-8")
    return read_configuration(paths, env)


def endpoint(configuration: Configuration, name: str) -> Endpoint:
    return next(each for each in configuration.endpoints if each.name == name)


def test_the_shipped_file_is_read() -> None:
    assert read_configuration([ROOT / "config" / "models.json"], {}) == read_configuration([], {})


def test_a_server_has_the_key_that_its_entry_names(tmp_path: Path) -> None:
    found = endpoint(read(tmp_path, {"servers": [VLLM]}, VLLM_API_KEY=KEY, OPENAI_API_KEY="another"), "vllm")

    assert (found.protocol, found.base_url, found.api_key) == ("openai", "http://127.0.0.1:8000/v1", KEY)
    assert found.context_length == 8192
    assert KEY not in repr(found)


def test_files_add_to_each_other(tmp_path: Path) -> None:
    pool = {"name": "both", "members": ["vllm/a", "ollama/b"]}
    found = read(tmp_path, {"servers": [VLLM], "gguf_folders": ["~/gguf"]}, {"pools": [pool]})

    assert found.pools[0].members == ("vllm/a", "ollama/b")
    assert found.gguf_dirs == (Path.home() / "gguf",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "openai"}, "name of a provider"),
        ({"name": "Not A Name"}, "name"),
        ({"protocol": "smtp"}, "protocol"),
        ({"api_key_env": "OPENAI_API_KEY"}, "belongs to its vendor"),
        ({"api_key_env": "HF_TOKEN"}, "belongs to its vendor"),
        ({"api_key_env": "lower"}, "api_key_env"),
        ({"context_length": 0}, "context_length"),
        ({"api_key": KEY}, "api_key"),
        *(
            ({"base_url": address}, "base_url")
            for address in (
                "",
                "127.0.0.1:8000",
                "ftp://host/v1",
                "file:///etc/passwd",
                "gopher://127.0.0.1",
                "http://ok@127.0.0.1",
                "http://user:pass@host/v1",
                "http://127.0.0.1/?key=1",
                "http://127.0.0.1#@ok",
                "http://ok\\@127.0.0.1",
                "http://host/\n",
                "http://",
            )
        ),
    ],
)
def test_a_wrong_server_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as error:
        read(tmp_path, {"servers": [VLLM | change]})

    assert "0.json" in str(error.value)
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "file",
    [
        {"servers": [VLLM, VLLM]},
        {"pools": [{"name": "a", "members": []}]},
        {"pools": [{"name": "a", "members": ["nobody/model"]}]},
        {"pools": [{"name": "a", "members": ["pool/a"]}]},
        {"pools": [{"name": "a", "members": ["ollama/x"]}, {"name": "a", "members": ["ollama/x"]}]},
        {"unknown": 1},
        [],
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, file: Any) -> None:
    with pytest.raises(ConfigurationError):
        read(tmp_path, file)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"[1"])
def test_a_file_that_is_no_json_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "models.json"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"models\.json"):
        read_configuration([file], {})


@pytest.mark.parametrize(
    ("variable", "provider"),
    [
        ("OPENAI_API_KEY", "openai"),
        ("ANTHROPIC_API_KEY", "anthropic"),
        ("CLAUDE_API_KEY", "anthropic"),
        ("GEMINI_API_KEY", "gemini"),
        ("GOOGLE_API_KEY", "gemini"),
        ("HF_TOKEN", "huggingface"),
        ("HUGGINGFACE_API_KEY", "huggingface"),
        ("OLLAMA_API_KEY", "ollama"),
    ],
)
def test_each_vendor_has_its_variables(variable: str, provider: str) -> None:
    configuration = read_configuration([], {variable: KEY})

    assert [each.name for each in configuration.endpoints if each.api_key == KEY] == [provider]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "huggingface"])
def test_a_moved_provider_never_has_the_vendors_key(provider: str) -> None:
    keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY, "GEMINI_API_KEY": KEY, "HF_TOKEN": KEY}
    moved = keys | {"LLM_PROVIDER": provider, "LLM_BASE_URL": "http://127.0.0.1:9/v1", "LLM_API_KEY": "sk-own"}

    assert endpoint(read_configuration([], moved), provider).api_key == "sk-own"
    del moved["LLM_API_KEY"]
    assert endpoint(read_configuration([], moved), provider).api_key is None


def test_a_base_url_without_a_known_provider_is_called_custom() -> None:
    configuration = read_configuration([], {"LLM_PROVIDER": "mine", "LLM_BASE_URL": "http://127.0.0.1:9/v1/"})

    assert endpoint(configuration, "custom").base_url == "http://127.0.0.1:9/v1"
    assert Settings.from_env({"LLM_BASE_URL": "http://127.0.0.1:9/v1", "LLM_MODEL": "m"}).default_model == "custom/m"


def test_claude_is_anthropic() -> None:
    assert Settings.from_env({"LLM_PROVIDER": "claude", "LLM_MODEL": "m"}).default_model == "anthropic/m"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.5:9999", "http://10.0.0.5:9999"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("https://ollama.example", "https://ollama.example:443"),
        ("http://ollama.example/path", "http://ollama.example:80/path"),
        (":56789", "http://127.0.0.1:56789"),
        ("[::1]", "http://[::1]:11434"),
        ("myhost", "http://myhost:11434"),
    ],
)
def test_ollamas_own_variable_is_understood(host: str, address: str) -> None:
    assert endpoint(read_configuration([], {"OLLAMA_HOST": host}), "ollama").base_url == address


@pytest.mark.parametrize(
    "env",
    [
        {"LLM_BASE_URL": "not an address"},
        {"OLLAMA_HOST": "user:pass@host"},
        {"FIRST_PIECE_SECONDS": "soon"},
        {"IDLE_SECONDS": "0"},
        {"IDLE_SECONDS": "nan"},
    ],
)
def test_a_wrong_environment_is_a_sentence(env: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        Settings.from_env(env)


def test_no_key_is_in_the_settings_text() -> None:
    settings = Settings.from_env({"OPENAI_API_KEY": KEY, "HF_TOKEN": KEY, "LLM_API_KEY": KEY})

    assert KEY not in repr(settings)
    assert KEY not in repr(settings.for_providers())
