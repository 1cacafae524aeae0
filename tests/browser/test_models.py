"""The model picker and the Models tab in Chromium."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import ChatPage


def test_the_table_shows_what_is_here_and_what_is_loaded(chat_page: ChatPage) -> None:
    chat_page.open_tab("models")
    table = chat_page.page.locator("#models-table")
    expect(table).to_contain_text(re.compile(r"transformers/starter\s*bundled\s*[\d.]+ MB\s*4,096\s*[\d.]+ MB"))


def test_a_row_loads_its_model(chat_page: ChatPage) -> None:
    chat_page.open_tab("models")
    chat_page.page.locator("#models-table").get_by_text("transformers/tiny", exact=True).click()
    expect(chat_page.page.locator("#model input")).to_have_value("tiny")
    expect(chat_page.page.locator("#model-state")).to_contain_text("Ready")


def test_a_folder_is_loaded_by_its_path(chat_page: ChatPage, models_dir: Path) -> None:
    chat_page.open_tab("models")
    chat_page.page.fill("#other-model input", str(models_dir / "other"))
    chat_page.page.press("#other-model input", "Enter")
    expect(chat_page.page.locator("#model input")).to_have_value(re.compile("/other$"))
    chat_page.open_tab("chat")
    chat_page.set_number("panel-max_tokens", 5)
    assert chat_page.ask("hello") is not None


def test_a_model_that_cannot_be_used_says_why_and_the_old_one_stays(chat_page: ChatPage, models_dir: Path) -> None:
    chat_page.open_tab("models")
    for folder, reason in (("pickled", "pickle"), ("empty", "no config.json"), ("nowhere", "no folder")):
        chat_page.page.fill("#other-model input", str(models_dir / folder))
        chat_page.page.press("#other-model input", "Enter")
        expect(chat_page.page.get_by_text(re.compile(reason)).first).to_be_visible()
        expect(chat_page.page.locator("#model input")).to_have_value("starter")
    chat_page.open_tab("chat")
    assert "simpleIA" in chat_page.ask("Who are you?")
