"""A real Chromium, and the page as a person uses it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from components.texts import text
from core.configuration import Configuration
from core.settings import Settings
from providers.types import Endpoint
from tests.conftest import BUNDLED, serving
from tests.wire import talker
from tests.wire.loopback import WireServer, wire_server
from tests.wire.openai import OpenAIWire

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
TABS = ("chat", "parameters", "models", "feedback", "finetune", "monitor")
SERVED = f"served/{talker.MODEL}"
PATIENCE_MS = 60_000  # An answer at temperature 0.7 may be long, and the machine busy.


@dataclass(frozen=True)
class ChatPage:
    """What a person does on the page, and what they see."""

    page: Page

    @property
    def answers(self) -> Locator:
        """What the model said, without what the page said about it."""
        return self.page.locator("#chat [data-testid=bot]:not([aria-label*=': ✓ ']):not([aria-label*=': ⚠ '])")

    @property
    def questions(self) -> Locator:
        return self.page.locator("#chat [data-testid=user]")

    @property
    def figures(self) -> Locator:
        return self.page.locator("#chat [aria-label*=': ✓ ']")

    @property
    def warnings(self) -> Locator:
        return self.page.locator("#chat [aria-label*=': ⚠ ']")

    @property
    def message(self) -> Locator:
        return self.page.locator("#message textarea")

    @property
    def stop(self) -> Locator:
        return self.page.locator("#message button.stop-button")

    def send(self, message: str) -> None:
        self.message.fill(message)
        self.message.press("Enter")

    def ask(self, message: str) -> str:
        """Send a message and return the whole answer."""
        answered = self.figures.count()
        self.send(message)
        expect(self.figures).to_have_count(answered + 1)
        return self.answers.last.inner_text()

    def press(self, button: str, number: int = 0) -> None:
        """Press one of the conversation's buttons: Copy message, Edit, Submit, Retry, Undo or Clear."""
        self.page.locator(f"#chat button[aria-label='{button}']").nth(number).click()

    def reload(self) -> None:
        """Load the page again and wait until it has brought everything back."""
        self.page.reload()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        expect(self.page.locator("#model-state")).to_contain_text(re.compile("Ready|Listo"))
        expect(self.page.locator("#parameters-in-force")).not_to_be_empty()

    def open_tab(self, tab: str) -> None:
        """Open a tab, also where the fonts are so wide that it is behind "More tabs"."""
        button = self.page.locator(f"#tab-{tab}-button")
        if button.count():
            button.click()
        else:
            name = text(f"tab_{tab}", self.page.evaluate("navigator.language.slice(0, 2)"))
            self.page.click("#tabs > .tab-wrapper button[aria-label='More tabs']")
            self.page.locator("#tabs > .tab-wrapper .overflow-dropdown").get_by_text(name, exact=True).click()
        expect(self.page.locator(f"#tab-{tab}")).to_be_visible()

    def choose_model(self, name: str) -> None:
        """Choose a model in the header and wait until it is loaded."""
        field = self.page.locator("#model input")
        field.fill(name)
        self.page.get_by_role("option", name=name, exact=True).click()
        expect(field).to_have_value(name)
        expect(self.page.locator("#model-state")).to_contain_text(re.compile("Ready|Listo"))

    def set_number(self, elem_id: str, value: float) -> None:
        """Type a value into a number field or into a slider's field."""
        field = self.page.locator(f"#{elem_id} input[type=number]")
        field.fill(f"{value:g}")
        field.press("Tab")


OpenPage = Callable[..., ChatPage]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str) -> Iterator[OpenPage]:
    """Open pages, each in a browser of its own; a script error or a failed request on one fails the test."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def open_one(*, width: int = 1280, height: int = 800, locale: str = "en-US", dark: bool = False) -> ChatPage:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            locale=locale,
            color_scheme="dark" if dark else "light",
            permissions=["clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("response", lambda response: problems.append(response.url) if response.status >= 500 else None)
        page.goto(url)
        chat = ChatPage(page)
        chat.wait_until_ready()
        return chat

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def open_page(browser: Browser, app_url: str) -> Iterator[OpenPage]:
    """Open pages of the application that most tests share."""
    with opened(browser, app_url) as open_one:
        yield open_one


@pytest.fixture
def chat_page(open_page: OpenPage) -> ChatPage:
    """The page in English on a desktop, with the bundled model."""
    return open_page()


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
    endpoint = Endpoint("served", "openai", service.url, None, "SERVED_API_KEY", context_length=32_000)
    data: Path = tmp_path_factory.mktemp("data")
    settings = Settings(
        data_dir=data, bundled_dir=BUNDLED, device="cpu", configuration=Configuration(endpoints=(endpoint,))
    )
    with serving(settings) as url:
        yield url


@pytest.fixture
def open_served(browser: Browser, service_url: str) -> Iterator[OpenPage]:
    """Open pages of that application."""
    with opened(browser, service_url) as open_one:
        yield open_one


@pytest.fixture
def served_page(open_served: OpenPage) -> ChatPage:
    """The page of that application."""
    return open_served()
