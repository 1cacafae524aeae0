"""The Monitor tab in Chromium: what the engines do, while somebody looks."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import ChatPage


def test_the_monitor_shows_an_answer_while_it_runs_and_what_is_kept_of_it(chat_page: ChatPage) -> None:
    chat_page.ask("Who are you?")
    chat_page.open_tab("monitor")
    table = chat_page.page.locator("#monitor-table")
    for head in ("Model", "Waiting", "Tokens/s"):
        expect(table.get_by_role("columnheader", name=head, exact=True).first).to_be_visible()
    expect(table).to_contain_text(
        re.compile(r"transformers/starter\s*\d+\s*\d+\s*[\d.]+\s*[\d.]+ [kM]B / [\d.]+ [MG]B")
    )


def test_nobody_asks_for_figures_once_the_tab_is_left(chat_page: ChatPage) -> None:
    chat_page.open_tab("monitor")
    expect(chat_page.page.locator("#monitor-table")).to_contain_text("transformers/")
    chat_page.open_tab("chat")
    chat_page.page.wait_for_timeout(2500)  # One tick finds the tab closed, and is the last.
    asked: list[str] = []
    chat_page.page.on("request", lambda request: asked.append(request.url))
    chat_page.page.wait_for_timeout(3000)

    assert not [url for url in asked if "/run/" in url or "/queue/join" in url or "/api/" in url]
