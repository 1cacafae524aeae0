"""Keys that people type: theirs alone, for one address alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.configuration import Configuration
from core.errors import InvalidRequest, NotAllowed
from core.models import Models
from core.session_keys import MAX_SESSIONS, SessionKeys
from core.settings import Settings
from providers.errors import MissingKey
from providers.remote import RemoteProvider
from providers.types import ChatRequest, Endpoint, Message, Parameters, Pool, ProviderInfo
from tests.wire import talker
from tests.wire.loopback import WireServer, wire_server
from tests.wire.openai import OpenAIWire

OPENAI = ProviderInfo("openai", "OpenAI", False, "", key_variable="OPENAI_API_KEY", base_url="https://api.openai.com")
KEY = "sk-canary-0123456789"
MODEL = f"served/{talker.MODEL}"


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    with wire_server(OpenAIWire()) as server:
        yield server


@pytest.fixture
async def models(server: WireServer, tmp_path: Path) -> AsyncIterator[Models]:
    """Models of a server that has a key of its own."""
    endpoint = Endpoint("served", "openai", server.url, "sk-of-the-server", "SERVED_API_KEY")
    models = Models(Settings(data_dir=tmp_path, configuration=Configuration(endpoints=(endpoint,)), device="cpu"))
    yield models
    await models.aclose()


def sent_keys(server: WireServer) -> set[str]:
    return {request.headers["authorization"] for request in server.requests}


def test_a_key_is_its_sessions_alone() -> None:
    keys = SessionKeys()
    kept = keys.keep("one", OPENAI, f"  {KEY}\n")

    assert kept.key == KEY
    assert kept.shown == "…6789"
    assert KEY not in repr(kept)
    assert keys.of("one")["openai"] is kept
    assert not keys.of("two")


def test_keys_are_forgotten_one_by_one_or_all() -> None:
    keys = SessionKeys()
    keys.keep("one", OPENAI, KEY)
    keys.keep("one", replace(OPENAI, key="other"), KEY)
    keys.forget("one", "openai")
    assert set(keys.of("one")) == {"other"}
    keys.forget("one")
    assert not keys.of("one")
    keys.forget("never seen", "openai")


def test_the_oldest_sessions_leave() -> None:
    keys = SessionKeys()
    for number in range(MAX_SESSIONS + 1):
        keys.keep(str(number), OPENAI, KEY)

    assert not keys.of("0")
    assert keys.of(str(MAX_SESSIONS))


@pytest.mark.parametrize("key", ["", "short", "x" * 501, "with space inside", "línea-con-acento", "a\x00bcdefgh"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest):
        SessionKeys().keep("one", OPENAI, key)


def test_a_provider_without_keys_takes_none() -> None:
    with pytest.raises(InvalidRequest, match="takes no key"):
        SessionKeys().keep("one", replace(OPENAI, key_variable=None), KEY)


async def test_a_typed_key_goes_to_its_service_and_only_in_its_session(models: Models, server: WireServer) -> None:
    models.session_keys.keep("mine", models.provider("served").info, KEY)
    await models.for_session("mine").find(MODEL)
    assert sent_keys(server) == {f"Bearer {KEY}"}

    server.requests.clear()
    await models.for_session("yours").find(MODEL)
    assert sent_keys(server) == {"Bearer sk-of-the-server"}


async def test_a_key_for_another_address_is_not_sent(models: Models, server: WireServer) -> None:
    models.session_keys.keep("mine", replace(models.provider("served").info, base_url="https://elsewhere"), KEY)
    await models.for_session("mine").find(MODEL)

    assert sent_keys(server) == {"Bearer sk-of-the-server"}


async def test_visitors_have_the_servers_key_for_the_default_model_only(models: Models, server: WireServer) -> None:
    visited = Models(replace(models.settings, auth="guest", default_model="transformers/starter"))
    provider = visited.split(MODEL)[0]
    assert isinstance(provider, RemoteProvider)
    assert not provider.has_key
    await visited.aclose()

    by_default = Models(replace(models.settings, auth="guest", default_model=MODEL))
    provider = by_default.split(MODEL)[0]
    assert isinstance(provider, RemoteProvider)
    assert provider.has_key
    await by_default.aclose()


async def test_a_pool_asks_its_members_with_the_same_keys(models: Models, server: WireServer) -> None:
    configuration = replace(models.settings.configuration, pools=(Pool("both", (MODEL,)),))
    visited = Models(replace(models.settings, auth="guest", configuration=configuration))
    await _ask(visited, "pool/both")
    assert sent_keys(server) == {"Bearer none"}

    server.requests.clear()
    visited.session_keys.keep("mine", visited.provider("served").info, KEY)
    await _ask(visited.for_session("mine"), "pool/both")
    assert sent_keys(server) == {f"Bearer {KEY}"}
    await visited.aclose()

    server.requests.clear()
    by_default = Models(replace(visited.settings, default_model="pool/both"))
    await _ask(by_default, "pool/both")
    assert sent_keys(server) == {"Bearer sk-of-the-server"}
    await by_default.aclose()


async def _ask(models: Models, model_id: str) -> None:
    provider, name = models.split(model_id)
    request = ChatRequest(name, (Message("user", "Hi"),), Parameters(max_tokens=2))
    assert [event async for event in provider.stream(request)]


async def test_visitors_may_not_use_the_vendors_without_a_key_of_their_own(models: Models) -> None:
    endpoint = Endpoint("openai", "openai", None, "sk-of-the-server", "OPENAI_API_KEY")
    visited = Models(replace(models.settings, auth="guest", configuration=Configuration(endpoints=(endpoint,))))
    with pytest.raises((NotAllowed, MissingKey)):
        await visited.find("openai/gpt-4o")
    assert not [row for row in await visited.list() if row.provider == "openai"]
    await visited.aclose()
