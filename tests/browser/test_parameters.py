"""The Parameters tab and the chat's panel in Chromium."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from core.parameters import PARAMETERS
from tests.browser.conftest import ChatPage


def test_every_parameter_has_a_control_with_help_and_reset(chat_page: ChatPage) -> None:
    chat_page.open_tab("parameters")
    for spec in PARAMETERS:
        control = chat_page.page.locator(f"#parameter-{spec.name}")
        expect(control).to_be_visible()
        assert len(control.inner_text().split()) > 6, "the control has no help"
        if spec.kind == "float":
            expect(control.locator("button.reset-button")).to_be_visible()
        else:
            expect(chat_page.page.locator(f"#reset-{spec.name}")).to_be_visible()


def test_the_panel_and_the_tab_show_the_same_values(chat_page: ChatPage) -> None:
    chat_page.set_number("panel-temperature", 0.2)
    chat_page.open_tab("parameters")
    expect(chat_page.page.locator("#parameter-temperature input[type=number]")).to_have_value("0.2")
    chat_page.set_number("parameter-max_tokens", 12)
    chat_page.open_tab("chat")
    expect(chat_page.page.locator("#panel-max_tokens input")).to_have_value("12")


def test_a_parameter_shapes_the_answer(chat_page: ChatPage) -> None:
    chat_page.set_number("panel-max_tokens", 3)
    chat_page.ask("Who are you?")
    expect(chat_page.figures).to_contain_text("✓ 3 tokens")
    expect(chat_page.figures).to_contain_text("cut at the length limit")


def test_the_same_seed_writes_the_same_answer(chat_page: ChatPage) -> None:
    chat_page.choose_model("tiny")
    chat_page.set_number("panel-max_tokens", 20)
    chat_page.open_tab("parameters")
    chat_page.set_number("parameter-seed", 5)
    expect(chat_page.page.locator("#parameters-in-force")).to_contain_text("Seed: 5")
    chat_page.open_tab("chat")
    first = chat_page.ask("hello")
    chat_page.press("Clear")
    expect(chat_page.questions).to_have_count(0)
    assert chat_page.ask("hello") == first


def test_settings_survive_a_reload_and_can_be_reset(chat_page: ChatPage) -> None:
    page = chat_page.page
    chat_page.open_tab("parameters")
    chat_page.set_number("parameter-top_k", 40)
    page.fill("#parameter-stop textarea", "END")
    page.fill("#system-prompt textarea", "You are a pirate.")
    expect(page.locator("#parameters-in-force")).to_contain_text(re.compile("Top-k: 40.*END.*pirate", re.DOTALL))
    chat_page.reload()
    chat_page.open_tab("parameters")
    expect(page.locator("#parameter-top_k input")).to_have_value("40")
    expect(page.locator("#parameter-stop textarea")).to_have_value("END")
    expect(page.locator("#system-prompt textarea")).to_have_value("You are a pirate.")
    page.click("#reset-top_k")
    expect(page.locator("#parameter-top_k input")).to_have_value("0")
    page.click("#reset-parameters")
    expect(page.locator("#system-prompt textarea")).to_have_value("")
    expect(page.locator("#parameter-temperature input[type=number]")).to_have_value("0.7")


def test_streaming_off_shows_the_answer_when_it_is_whole(chat_page: ChatPage) -> None:
    chat_page.choose_model("slow")
    chat_page.open_tab("parameters")
    chat_page.page.uncheck("#streaming input")
    chat_page.open_tab("chat")
    chat_page.set_number("panel-max_tokens", 60)
    lengths = chat_page.page.evaluate_handle(
        """() => {
            const lengths = new Set();
            new MutationObserver(() => {
                const answer = document.querySelector("#chat [data-testid=bot]");
                if (answer?.innerText) lengths.add(answer.innerText.length);
            }).observe(document.querySelector("#chat"), { subtree: true, childList: true, characterData: true });
            return lengths;
        }"""
    )
    chat_page.ask("hello")
    assert chat_page.page.evaluate("(lengths) => lengths.size", lengths) == 1


def test_markdown_off_shows_the_plain_text(chat_page: ChatPage) -> None:
    chat_page.open_tab("parameters")
    chat_page.page.uncheck("#markdown input")
    chat_page.open_tab("chat")
    chat_page.send("**bold** `code`")
    expect(chat_page.questions).to_have_text("**bold** `code`")


@pytest.mark.parametrize("typed", ["999999999", "-5"])
def test_a_value_out_of_range_is_refused_with_a_sentence(chat_page: ChatPage, typed: str) -> None:
    field = chat_page.page.locator("#panel-max_tokens input")
    field.fill(typed)
    field.press("Tab")
    chat_page.send("hello")
    expect(chat_page.warnings).to_contain_text("max_tokens must be a whole number from 1 to 131072")
    chat_page.set_number("panel-max_tokens", 5)
    chat_page.press("Retry")
    expect(chat_page.figures).to_have_count(1)
