"""What the environment decides, and what it may not ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.settings import ROOT, Settings, SettingsError


def test_an_empty_environment_is_one_local_user_on_loopback() -> None:
    assert Settings.from_env({}) == Settings()
    assert (Settings().host, Settings().port, Settings().auth) == ("127.0.0.1", 7860, "off")
    assert Settings().default_model == "transformers/starter"
    assert Settings().data_dir == ROOT / "data"


def test_empty_variables_are_as_good_as_none() -> None:
    names = (
        "GRADIO_SERVER_NAME GRADIO_SERVER_PORT AUTH DEFAULT_MODEL LLM_PROVIDER LLM_MODEL DATA_DIR DEVICE HF_TOKEN "
        "HUGGINGFACE_API_KEY SPACE_ID"
    )
    assert Settings.from_env(dict.fromkeys(names.split(), "")) == Settings()


def test_every_variable_is_read() -> None:
    settings = Settings.from_env(
        {
            "GRADIO_SERVER_NAME": "0.0.0.0",
            "GRADIO_SERVER_PORT": "8080",
            "AUTH": "guest",
            "DEFAULT_MODEL": "transformers/gpt2",
            "DATA_DIR": "~/data of mine",
            "DEVICE": "cpu",
            "HF_TOKEN": "secret",
            "PROMPT_LOOKUP": "on",
        }
    )

    assert (settings.host, settings.port, settings.auth) == ("0.0.0.0", 8080, "guest")
    assert (settings.default_model, settings.device, settings.hub_token) == ("transformers/gpt2", "cpu", "secret")
    assert settings.data_dir == Path.home() / "data of mine"
    assert settings.for_providers().models_dir == settings.data_dir / "models"
    assert settings.for_providers().load_options.device == "cpu"
    assert settings.for_providers().engine_limits.prompt_lookup


@pytest.mark.parametrize(
    ("environment", "model"),
    [
        ({"LLM_MODEL": "gpt2"}, "transformers/gpt2"),
        ({"LLM_PROVIDER": "local", "LLM_MODEL": "gpt2"}, "transformers/gpt2"),
        ({"LLM_PROVIDER": "hf", "LLM_MODEL": "a/b"}, "transformers/a/b"),
        ({"LLM_PROVIDER": "ollama", "LLM_MODEL": "mistral:7b"}, "ollama/mistral:7b"),
        ({"LLM_PROVIDER": "openai"}, "transformers/starter"),
        ({"LLM_MODEL": "gpt2", "DEFAULT_MODEL": "/models/mine"}, "/models/mine"),
    ],
)
def test_the_model_has_two_names_in_the_guides(environment: dict[str, str], model: str) -> None:
    assert Settings.from_env(environment).default_model == model


def test_the_hub_token_has_two_names() -> None:
    assert Settings.from_env({"HUGGINGFACE_API_KEY": "one"}).hub_token == "one"
    assert Settings.from_env({"HUGGINGFACE_API_KEY": "one", "HF_TOKEN": "two"}).hub_token == "two"


def test_a_space_listens_everywhere_for_guests() -> None:
    settings = Settings.from_env({"SPACE_ID": "someone/simpleia"})

    assert (settings.host, settings.port, settings.auth, settings.on_space) == ("0.0.0.0", 7860, "guest", True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example.org"])
def test_auth_off_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(SettingsError, match="Set AUTH=guest, or GRADIO_SERVER_NAME=127.0.0.1"):
        Settings.from_env({"GRADIO_SERVER_NAME": host})
    assert Settings.from_env({"GRADIO_SERVER_NAME": host, "AUTH": "guest"}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_has_many_names(host: str) -> None:
    assert Settings.from_env({"GRADIO_SERVER_NAME": host}).auth == "off"


def test_a_space_without_auth_is_refused() -> None:
    with pytest.raises(SettingsError, match="AUTH=off"):
        Settings.from_env({"SPACE_ID": "someone/simpleia", "AUTH": "off"})


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "7860.0", "99999999999999999999"])
def test_a_wrong_port_is_refused(port: str) -> None:
    with pytest.raises(SettingsError, match="GRADIO_SERVER_PORT must be a number from 1 to 65535"):
        Settings.from_env({"GRADIO_SERVER_PORT": port})


@pytest.mark.parametrize("auth", ["none", "OFF", "required", "1"])
def test_an_unknown_mode_is_refused(auth: str) -> None:
    with pytest.raises(SettingsError, match="AUTH must be off or guest"):
        Settings.from_env({"AUTH": auth})


@pytest.mark.parametrize("device", ["gpu", "banana", "cuda:x", "-1"])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(SettingsError, match="DEVICE must be"):
        Settings.from_env({"DEVICE": device})


def test_a_switch_is_on_or_off() -> None:
    assert not Settings.from_env({"PROMPT_LOOKUP": "off"}).prompt_lookup
    with pytest.raises(SettingsError, match="PROMPT_LOOKUP must be on or off"):
        Settings.from_env({"PROMPT_LOOKUP": "maybe"})


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:11", "mps"])
def test_every_known_device_is_taken(device: str) -> None:
    assert Settings.from_env({"DEVICE": device}).device == device
