"""The Models tab in Chromium: the machine, an estimate before the load, load options, switch, unload, delete."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import ChatPage, OpenPage

FIELD = "#other-model input"


def test_the_machine_and_what_is_in_memory_are_shown(chat_page: ChatPage) -> None:
    chat_page.open_tab("models")
    expect(chat_page.page.locator("#machine")).to_contain_text(re.compile(r"Memory \(RAM\).*free of"))
    expect(chat_page.page.locator("#machine")).to_contain_text("Disk")
    expect(chat_page.page.locator("#loaded-models")).to_contain_text(re.compile(r"transformers/starter.*estimated"))


def test_a_model_is_estimated_loaded_with_options_used_and_unloaded(chat_page: ChatPage) -> None:
    page = chat_page.page
    chat_page.open_tab("models")
    page.fill(FIELD, "other")
    expect(page.locator("#estimate")).to_contain_text(re.compile(r"Fits\. About [\d.]+ MB on cpu"))
    page.get_by_role("button", name="Load options").click()
    page.locator("#option-quantization input").click()
    page.get_by_role("option", name="int8", exact=True).click()
    expect(page.locator("#estimate")).to_contain_text("Quantization int8, as chosen.")
    page.click("#load-model")
    expect(page.locator("#loaded-models")).to_contain_text(re.compile(r"transformers/other cpu · bfloat16 · int8"))
    expect(page.locator("#model input")).to_have_value("other")
    chat_page.open_tab("chat")
    chat_page.set_number("panel-max_tokens", 5)
    chat_page.ask("hello")
    chat_page.open_tab("models")
    page.click("#unload-model")
    expect(page.locator("#loaded-models")).not_to_contain_text("transformers/other")


def test_a_model_is_deleted_only_after_a_question(chat_page: ChatPage, models_dir: Path) -> None:
    page = chat_page.page
    folder = models_dir / "throwaway"
    shutil.copytree(models_dir / "tiny", folder)
    chat_page.open_tab("models")
    page.fill(FIELD, "throwaway")
    expect(page.locator("#estimate")).to_contain_text("Fits.")
    page.click("#delete-model")
    page.click("#keep-model")
    expect(page.locator("#confirm-delete")).to_be_hidden()
    assert folder.is_dir()
    page.click("#delete-model")
    page.click("#confirm-delete")
    expect(page.locator("#confirm-delete")).to_be_hidden()
    expect(page.locator("#models-table")).not_to_contain_text("throwaway")
    assert not folder.exists()


def test_a_suggested_model_is_named_by_its_row_and_its_hub_is_asked(chat_page: ChatPage, tries_network: None) -> None:
    page = chat_page.page
    chat_page.open_tab("models")
    page.get_by_role("button", name="Suggested models").click()
    page.locator("#catalogue-table").get_by_text("Qwen/Qwen3-0.6B", exact=True).click()
    expect(page.locator(FIELD)).to_have_value("Qwen/Qwen3-0.6B")
    expect(page.locator("#estimate")).to_contain_text("the Hugging Face Hub cannot be reached")


def test_it_is_in_spanish_and_fits_a_phone(open_page: OpenPage) -> None:
    chat = open_page(width=390, height=844, locale="es-ES")
    chat.open_tab("models")
    expect(chat.page.locator("#machine")).to_contain_text("Memoria (RAM)")
    expect(chat.page.locator("#load-model")).to_have_text("Cargar y usar")
    assert chat.page.evaluate("document.documentElement.scrollWidth") <= 390
