"""The services that the configuration names: servers, pools and folders of GGUF files, and whose key goes where.

Read from `config/models.json` and from `DATA_DIR/config.json`, which may add to it. A key belongs to one host: the
variables of the vendors are read for the vendors' own addresses only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from core.load_options import WrittenOptions
from core.model_entries import ModelEntry
from providers.catalog import PROTOCOLS, PROVIDERS
from providers.types import Endpoint, Pool

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]
MODEL_ID = r"^[a-z0-9][a-z0-9._-]{0,39}/.{1,1000}$"

# Which variables hold the key of each vendor; the first that is set counts.
KEY_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY", "CLAUDE_API_KEY"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "huggingface": ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
    "ollama": ("OLLAMA_API_KEY",),
}
VENDORS = frozenset(variable for variables in KEY_VARIABLES.values() for variable in variables)
ALIASES = {"claude": "anthropic", "local": "transformers", "hf": "transformers", "google": "gemini"}
CUSTOM = "custom"


class ConfigurationError(Exception):
    """A configuration that cannot be used; the message says where and why."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Strict):
    """A service at an address of its own."""

    name: Name
    protocol: Literal["openai", "anthropic", "gemini", "huggingface", "ollama"] = "openai"
    base_url: str
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,79}$")] | None = None
    label: Annotated[str, Field(max_length=60)] = ""
    context_length: Annotated[int, Field(gt=0)] | None = None

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name in PROVIDERS:
            raise ValueError(f"{name} is the name of a provider; choose another")
        return name

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, address: str) -> str:
        return checked_address(address)

    @field_validator("api_key_env")
    @classmethod
    def _is_its_own(cls, variable: str | None) -> str | None:
        if variable in VENDORS:
            raise ValueError(f"{variable} belongs to its vendor's own address; name a variable of this server")
        return variable


class PoolEntry(_Strict):
    """One model that stands for several."""

    name: Name
    members: Annotated[tuple[Annotated[str, Field(pattern=MODEL_ID)], ...], Field(min_length=1, max_length=100)]


class ConfigurationFile(_Strict):
    """What `config/models.json` and `DATA_DIR/config.json` may hold."""

    servers: tuple[Server, ...] = ()
    pools: tuple[PoolEntry, ...] = ()
    gguf_folders: tuple[str, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    load_options: Mapping[Annotated[str, Field(pattern=MODEL_ID)], WrittenOptions] = {}
    selected_model: Annotated[str, Field(min_length=1, max_length=1000)] | None = None


@dataclass(frozen=True)
class Configuration:
    """What the files and the environment name."""

    endpoints: tuple[Endpoint, ...] = ()
    pools: tuple[Pool, ...] = ()
    gguf_dirs: tuple[Path, ...] = ()


def read_configuration(files: Sequence[Path], env: Mapping[str, str]) -> Configuration:
    """Read the files that are there and the environment. Raises ConfigurationError."""
    read = [read_file(file) for file in files if file.is_file()]
    servers = [server for each in read for server in each.servers]
    pools = [Pool(entry.name, entry.members) for each in read for entry in each.pools]
    _check_unique("server", (server.name for server in servers))
    _check_unique("pool", (pool.name for pool in pools))
    endpoints = [*_vendors(env), *(_endpoint(server, env) for server in servers)]
    names = {*PROVIDERS, *(endpoint.name for endpoint in endpoints)}
    for pool in pools:
        for member in pool.members:
            if member.split("/")[0] not in names - {"pool"}:
                raise ConfigurationError(f"The pool {pool.name} names {member}, whose provider is not there.")
    folders = tuple(Path(folder).expanduser() for each in read for folder in each.gguf_folders)
    return Configuration(tuple(endpoints), tuple(pools), folders)


def checked_address(address: str) -> str:
    """Return the address of a service. Raises ValueError where it is not plainly one."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{address!r} is not an address such as http://127.0.0.1:8000/v1")
    if (
        parts.username
        or parts.password
        or parts.query
        or parts.fragment
        or "\\" in address
        or not address.isprintable()
    ):
        raise ValueError(f"{address!r} may hold no name, key, query or fragment")
    return address.rstrip("/")


def _vendors(env: Mapping[str, str]) -> Iterable[Endpoint]:
    """Yield the services of the catalog with their keys; LLM_BASE_URL moves one, which then has only LLM_API_KEY."""
    moved, address = _moved(env)
    for name in PROTOCOLS:
        variable = next((each for each in KEY_VARIABLES[name] if env.get(each)), KEY_VARIABLES[name][0])
        if name == moved:
            yield Endpoint(name, name, address, env.get("LLM_API_KEY") or None, "LLM_API_KEY")
        elif name == "ollama" and env.get("OLLAMA_HOST"):
            yield Endpoint(name, name, _ollama_address(env["OLLAMA_HOST"]), env.get(variable) or None, variable)
        else:
            yield Endpoint(name, name, None, env.get(variable) or None, variable)
    if moved == CUSTOM:
        yield Endpoint(CUSTOM, "openai", address, env.get("LLM_API_KEY") or None, "LLM_API_KEY")


def _moved(env: Mapping[str, str]) -> tuple[str | None, str | None]:
    if not env.get("LLM_BASE_URL"):
        return None, None
    provider = env.get("LLM_PROVIDER") or CUSTOM
    provider = ALIASES.get(provider, provider)
    try:
        return (provider if provider in PROTOCOLS else CUSTOM), checked_address(env["LLM_BASE_URL"])
    except ValueError as error:
        raise ConfigurationError(f"LLM_BASE_URL: {error}.") from error


def _ollama_address(host: str) -> str:
    """Return OLLAMA_HOST as an address, read as Ollama's own client does.

    It may lack the scheme, the host or the port, and 0.0.0.0 is where a server listens.
    """
    try:
        host = f"127.0.0.1{host}" if host.startswith(":") else host
        parts = urlsplit(checked_address(host if "://" in host else f"http://{host}"))
        name = "127.0.0.1" if parts.hostname == "0.0.0.0" else str(parts.hostname)
        port = parts.port or {"http": 80, "https": 443}.get(host.partition("://")[0], 11434)
        return checked_address(f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}{parts.path}")
    except ValueError as error:
        raise ConfigurationError(f"OLLAMA_HOST: {error}.") from error


def _endpoint(server: Server, env: Mapping[str, str]) -> Endpoint:
    return Endpoint(
        name=server.name,
        protocol=server.protocol,
        base_url=server.base_url,
        api_key=env.get(server.api_key_env) or None if server.api_key_env else None,
        key_variable=server.api_key_env,
        label=server.label,
        context_length=server.context_length,
    )


def read_file(file: Path) -> ConfigurationFile:
    """Read and check a file. Raises ConfigurationError."""
    try:
        return ConfigurationFile.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ConfigurationError(f"{file.name}, {place}: {problem['msg']}.") from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file.name} is no JSON that can be read: {error}.") from error


def _check_unique(kind: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigurationError(f"There are two {kind}s called {name}.")
        seen.add(name)
