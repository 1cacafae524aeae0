"""The settings of a server, read once from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from core.configuration import ALIASES, CUSTOM, Configuration, ConfigurationError, read_configuration
from providers.types import EngineLimits, LoadOptions, ProviderSettings, Timeouts

ROOT = Path(__file__).resolve().parent.parent
AuthMode = Literal["off", "guest"]
BUNDLED_MODEL = "transformers/starter"
CATALOGUE = ROOT / "config" / "models.json"
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?", re.ASCII)


class SettingsError(Exception):
    """The environment asks for something that cannot be; the message says what to change."""


@dataclass(frozen=True)
class Settings:
    """Everything that the environment decides; `.env.example` lists the variables."""

    host: str = "127.0.0.1"
    port: int = 7860
    auth: AuthMode = "off"
    on_space: bool = False
    default_model: str = BUNDLED_MODEL
    data_dir: Path = ROOT / "data"
    bundled_dir: Path = ROOT / "models"
    device: str = "auto"
    hub_token: str | None = field(default=None, repr=False)
    configuration: Configuration = field(default_factory=lambda: read_configuration([], {}))
    timeouts: Timeouts = field(default_factory=Timeouts)
    prompt_lookup: bool = False

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read the settings. Raises SettingsError with a sentence that says what to change."""
        on_space = bool(env.get("SPACE_ID"))
        data_dir = Path(env.get("DATA_DIR") or cls.data_dir).expanduser()
        try:
            configuration = read_configuration([CATALOGUE, data_dir / "config.json"], env)
        except ConfigurationError as error:
            raise SettingsError(str(error)) from error
        settings = cls(
            host=env.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if on_space else cls.host),
            port=_port(env.get("GRADIO_SERVER_PORT") or str(cls.port)),
            auth=_auth(env.get("AUTH") or ("guest" if on_space else "off")),
            on_space=on_space,
            default_model=env.get("DEFAULT_MODEL") or _model_of_provider(env) or cls.default_model,
            data_dir=data_dir,
            device=_device(env.get("DEVICE") or cls.device),
            hub_token=env.get("HF_TOKEN") or env.get("HUGGINGFACE_API_KEY") or None,
            configuration=configuration,
            prompt_lookup=_switch(env, "PROMPT_LOOKUP"),
            timeouts=Timeouts(
                first_piece=_seconds(env, "FIRST_PIECE_SECONDS", Timeouts.first_piece),
                idle=_seconds(env, "IDLE_SECONDS", Timeouts.idle),
            ),
        )
        if settings.auth == "off" and not _is_loopback(settings.host):
            raise SettingsError(
                f"AUTH=off lets everybody do everything, so it cannot listen on {settings.host}. "
                "Set AUTH=guest, or GRADIO_SERVER_NAME=127.0.0.1."
            )
        return settings

    @property
    def catalogue_file(self) -> Path:
        """The models that simpleIA suggests, and the services that come with it."""
        return CATALOGUE

    @property
    def runs_dir(self) -> Path:
        """Where each run of fine-tuning has its folder, and its adapter in it."""
        return self.data_dir / "runs"

    def for_providers(self) -> ProviderSettings:
        """Return the part that providers may know."""
        return ProviderSettings(
            bundled_dir=self.bundled_dir,
            models_dir=self.data_dir / "models",
            runs_dir=self.runs_dir,
            hub_token=self.hub_token,
            endpoints=self.configuration.endpoints,
            pools=self.configuration.pools,
            gguf_dirs=self.configuration.gguf_dirs,
            timeouts=self.timeouts,
            load_options=LoadOptions(device=self.device),
            engine_limits=EngineLimits(prompt_lookup=self.prompt_lookup),
        )


def _model_of_provider(env: Mapping[str, str]) -> str | None:
    """Join LLM_PROVIDER and LLM_MODEL into a model id; "local" and "hf" mean transformers, "claude" means anthropic."""
    provider, model = env.get("LLM_PROVIDER"), env.get("LLM_MODEL")
    if not model:
        return None
    provider = provider or (CUSTOM if env.get("LLM_BASE_URL") else "transformers")
    return f"{ALIASES.get(provider, provider)}/{model}"


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 3600:
        raise SettingsError(f"{name} must be a number of seconds from 0 to 3600, not {text!r}.")
    return seconds


def _switch(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name) or "off"
    if text not in ("on", "off"):
        raise SettingsError(f"{name} must be on or off, not {text!r}.")
    return text == "on"


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise SettingsError(f"GRADIO_SERVER_PORT must be a number from 1 to 65535, not {text!r}.")
    return int(text)


def _device(text: str) -> str:
    if not DEVICE.fullmatch(text):
        raise SettingsError(f"DEVICE must be auto, cpu, cuda, cuda:N or mps, not {text!r}.")
    return text


def _auth(text: str) -> AuthMode:
    modes: dict[str, AuthMode] = {"off": "off", "guest": "guest"}
    if text not in modes:
        raise SettingsError(f"AUTH must be off or guest, not {text!r}.")
    return modes[text]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
