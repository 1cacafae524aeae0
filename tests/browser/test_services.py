"""Services on the network in the page: their models, a key for this page only, and an error that says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from core.configuration import Configuration
from core.settings import Settings
from providers.types import Endpoint
from tests.browser.conftest import ChatPage, opened
from tests.conftest import BUNDLED, serving
from tests.wire import talker
from tests.wire.loopback import Cut, Status, WireServer, wire_server
from tests.wire.openai import OpenAIWire

MODEL = f"served/{talker.MODEL}"
KEY = "sk-canary-of-this-page-1234"


@pytest.fixture(scope="module")
def service() -> Iterator[WireServer]:
    """A server of OpenAI's protocol."""
    with wire_server(OpenAIWire()) as server:
        yield server


@pytest.fixture(scope="module")
def service_url(
    service: WireServer, tmp_path_factory: pytest.TempPathFactory, hosts_reached_for: list[str]
) -> Iterator[str]:
    """The address of an application whose configuration names that server."""
    endpoint = Endpoint("served", "openai", service.url, None, "SERVED_API_KEY")
    data: Path = tmp_path_factory.mktemp("data")
    settings = Settings(
        data_dir=data, bundled_dir=BUNDLED, device="cpu", configuration=Configuration(endpoints=(endpoint,))
    )
    with serving(settings) as url:
        yield url


@pytest.fixture
def page(browser: Browser, service_url: str) -> Iterator[ChatPage]:
    """The page of that application."""
    with opened(browser, service_url) as open_one:
        yield open_one()


def test_a_model_of_a_service_is_chosen_and_answers(page: ChatPage, service: WireServer) -> None:
    page.choose_model(MODEL)
    expect(page.page.locator("#model-state")).to_contain_text("served")

    assert len(page.ask("Hello?")) > 20
    assert service.chats[-1].body["messages"][-1]["content"] == "Hello?"


def test_a_key_is_used_shown_by_its_end_and_forgotten(page: ChatPage, service: WireServer) -> None:
    page.open_tab("models")
    page.page.locator("#services button").first.click()
    page.page.locator("#key-service input").click()
    page.page.get_by_role("option", name="served", exact=True).click()
    page.page.locator("#service-key input").fill(KEY)
    page.page.locator("#service-key input").press("Enter")
    expect(page.page.locator("#services-table")).to_contain_text("…1234")
    expect(page.page.locator("#service-key input")).to_have_value("")
    page.open_tab("chat")
    page.choose_model(MODEL)
    page.ask("With a key?")

    assert service.chats[-1].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in page.page.content()
    assert KEY not in page.page.evaluate("JSON.stringify(localStorage)")
    page.open_tab("models")
    page.page.click("#forget-key")
    expect(page.page.locator("#services-table")).not_to_contain_text("…1234")


def test_an_answer_that_breaks_off_is_kept_and_says_so(page: ChatPage, service: WireServer) -> None:
    page.choose_model(MODEL)
    service.faults.append(Cut(after=5))
    page.send("Break off")
    expect(page.warnings).to_contain_text(re.compile("incomplete"))

    assert page.answers.last.inner_text()


def test_a_refused_key_says_where_to_type_another(page: ChatPage, service: WireServer) -> None:
    page.choose_model(MODEL)
    service.faults.append(Status(401, "invalid key"))
    page.send("Refuse me")
    expect(page.warnings).to_contain_text("SERVED_API_KEY")
