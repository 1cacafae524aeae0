"""No visitor makes the server call an address that is not configured, and no key is seen where it does not belong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from core.configuration import Configuration
from core.settings import Settings
from providers.types import Endpoint
from tests.api.raw_calls import call, refusal
from tests.conftest import BUNDLED, serving
from tests.security.page_events import dependencies, filled_in, raise_event
from tests.wire import talker
from tests.wire.loopback import WireServer, wire_server
from tests.wire.openai import OpenAIWire

KEY = "sk-canary-of-the-server-98765"


@pytest.fixture(scope="module")
def canary() -> Iterator[WireServer]:
    """A server on loopback that nobody configured."""
    with wire_server(OpenAIWire()) as server:
        yield server


@pytest.fixture(scope="module")
def service() -> Iterator[WireServer]:
    """A server that the configuration names."""
    with wire_server(OpenAIWire()) as server:
        yield server


@pytest.fixture(scope="module")
def visited(
    service: WireServer, tmp_path_factory: pytest.TempPathFactory, hosts_reached_for: list[str]
) -> Iterator[httpx.Client]:
    """An application for visitors, with a service and a key of its own."""
    data: Path = tmp_path_factory.mktemp("data")
    endpoint = Endpoint("served", "openai", service.url, KEY, "SERVED_API_KEY")
    settings = Settings(
        data_dir=data,
        bundled_dir=BUNDLED,
        device="cpu",
        auth="guest",
        configuration=Configuration(endpoints=(endpoint,)),
    )
    with serving(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def addresses(port: int) -> list[str]:
    """Return the ways to write loopback, and where clouds keep their secrets."""
    hosts = ("127.0.0.1", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "127.1", "localhost.", "[::ffff:127.0.0.1]")
    urls = [f"http://{host}:{port}/v1" for host in hosts]
    return [*urls, f"http://ok@127.0.0.1:{port}", f"http://127.0.0.1:{port}#@ok", "http://169.254.169.254/latest"]


def test_no_model_name_is_an_address(visited: httpx.Client, canary: WireServer) -> None:
    for address in addresses(canary.port):
        for prefix in ("", "openai/", "ollama/", "custom/", "huggingface/", "served/", "llama_cpp/", "pool/"):
            assert refusal(visited, "chat", {"message": "Hello", "model": f"{prefix}{address}"})

    assert canary.requests == []


def test_no_picture_is_fetched(visited: httpx.Client, canary: WireServer) -> None:
    for address in addresses(canary.port):
        assert refusal(visited, "chat", {"message": "Look", "images": [address]})

    assert canary.requests == []


def test_no_event_of_the_page_calls_an_address(visited: httpx.Client, canary: WireServer, tries_network: None) -> None:
    # Gradio looks up the host of what is given as a file's address, and then refuses it.
    for dependency in dependencies(visited):
        raise_event(visited, dependency, filled_in(visited, dependency, f"http://127.0.0.1:{canary.port}/v1"))

    assert canary.requests == []


def test_the_servers_key_is_not_a_visitors(visited: httpx.Client, service: WireServer) -> None:
    call(visited, "chat", {"message": "Hello", "model": f"served/{talker.MODEL}"})

    assert service.requests
    assert not [request for request in service.requests if KEY in str(request.headers)]


def test_no_answer_of_the_server_holds_the_key_or_an_inner_address(visited: httpx.Client, service: WireServer) -> None:
    said = [visited.get(path).text for path in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json")]
    said += [str(call(visited, name, {})) for name in ("list_providers", "list_models")]

    assert not [text for text in said if KEY in text]
    assert not [text for text in said if str(service.port) in text]
