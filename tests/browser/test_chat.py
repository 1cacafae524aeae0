"""The Chat tab in Chromium."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import ChatPage, OpenPage
from tests.engine_watch import EngineWatch


def test_an_answer_streams_and_ends_with_its_figures(chat_page: ChatPage) -> None:
    chat_page.choose_model("slow")
    chat_page.set_number("panel-max_tokens", 80)
    chat_page.send("hello")
    expect(chat_page.answers).to_have_count(1)
    early = len(chat_page.answers.inner_text())
    expect(chat_page.figures).to_have_text(re.compile(r"✓ 80 tokens · [\d.]+ tokens/s · first token after [\d.]+ s"))
    assert len(chat_page.answers.inner_text()) > early


def test_nothing_lies_over_the_answer(chat_page: ChatPage) -> None:
    chat_page.ask("Who are you?")
    assert chat_page.answers.evaluate(
        """(answer) => {
            const box = answer.getBoundingClientRect();
            return answer.contains(document.elementFromPoint(box.x + box.width / 2, box.y + 10));
        }"""
    )
    assert chat_page.page.locator("#chat [data-testid=status-tracker]").evaluate_all(
        "(trackers) => trackers.every((tracker) => getComputedStyle(tracker).opacity === '0')"
    )


def test_stop_keeps_what_was_written_and_ends_the_engine(chat_page: ChatPage, engine: EngineWatch) -> None:
    chat_page.choose_model("slow")
    chat_page.send("hello")
    expect(chat_page.answers).to_have_count(1)
    chat_page.stop.click()
    expect(chat_page.warnings).to_contain_text("Stopped by you")
    assert chat_page.answers.inner_text()
    engine.layers_until_quiet()
    expect(chat_page.page.locator("#message button.submit-button")).to_be_visible()


def test_closing_the_tab_ends_the_engine(chat_page: ChatPage, engine: EngineWatch) -> None:
    chat_page.choose_model("slow")
    chat_page.send("hello")
    expect(chat_page.answers).to_have_count(1)
    chat_page.page.close()
    engine.layers_until_quiet()


def test_an_edited_message_is_asked_again(chat_page: ChatPage) -> None:
    chat_page.ask("Hello")
    chat_page.ask("Thanks")
    chat_page.press("Edit")
    editor = chat_page.page.locator("#chat textarea")
    editor.fill("¿Quién eres?")
    chat_page.press("Submit")
    expect(chat_page.questions).to_have_count(1)
    expect(chat_page.questions).to_contain_text("¿Quién eres?")
    expect(chat_page.answers).to_contain_text("simpleIA")


def test_retry_replaces_the_answer(chat_page: ChatPage) -> None:
    chat_page.set_number("panel-temperature", 0)
    first = chat_page.ask("Who are you?")
    chat_page.press("Retry")
    expect(chat_page.figures).to_have_count(1)
    expect(chat_page.answers).to_have_text(first)


def test_undo_gives_the_message_back(chat_page: ChatPage) -> None:
    chat_page.ask("Hello")
    chat_page.press("Undo")
    expect(chat_page.questions).to_have_count(0)
    expect(chat_page.message).to_have_value("Hello")


def test_copy_takes_the_answer_alone(chat_page: ChatPage) -> None:
    answer = chat_page.ask("Who are you?")
    chat_page.press("Copy message", 1)
    copied = chat_page.page.evaluate("navigator.clipboard.readText()")
    assert copied.split() == answer.split()


def test_clear_keeps_the_system_prompt(chat_page: ChatPage) -> None:
    chat_page.open_tab("parameters")
    chat_page.page.fill("#system-prompt textarea", "Be brief.")
    chat_page.open_tab("chat")
    chat_page.ask("Hello")
    chat_page.press("Clear")
    expect(chat_page.questions).to_have_count(0)
    expect(chat_page.page.locator("#parameters-in-force")).to_contain_text("Be brief.")


def test_an_empty_message_changes_nothing(chat_page: ChatPage) -> None:
    chat_page.send("   ")
    expect(chat_page.page.get_by_text("The message is empty. Write something first.")).to_be_visible()
    expect(chat_page.questions).to_have_count(0)
    assert chat_page.ask("Hello")


def test_a_message_that_cannot_fit_is_refused_and_kept(chat_page: ChatPage) -> None:
    chat_page.send("word " * 6000)
    expect(chat_page.warnings).to_contain_text(re.compile(r"This message has \d+ tokens .* takes at most \d+"))
    expect(chat_page.questions).to_have_count(1)
    chat_page.press("Undo")
    expect(chat_page.message).to_have_value(re.compile("^word word"))


def test_code_tables_and_formulas_are_rendered(open_page: OpenPage) -> None:
    """The person's own message is rendered by the same component as the answers."""
    chat = open_page()
    chat.message.fill("```python\ndef f():\n    return 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n$$x^2$$ \\(y\\)")
    chat.message.press("Enter")
    expect(chat.questions.locator("pre code")).to_have_text(re.compile(r"def f\(\):\n    return 1"))
    expect(chat.questions.locator("table td")).to_have_count(2)
    expect(chat.questions.locator(".katex").first).to_be_visible()


def test_a_reload_brings_the_conversation_back(chat_page: ChatPage) -> None:
    answer = chat_page.ask("Who are you?")
    chat_page.reload()
    expect(chat_page.questions).to_have_text("Who are you?")
    expect(chat_page.answers).to_have_text(answer)


def test_a_reload_in_the_middle_keeps_and_marks_the_answer(chat_page: ChatPage, engine: EngineWatch) -> None:
    chat_page.choose_model("slow")
    chat_page.send("hello")
    expect(chat_page.answers).to_have_count(1)
    chat_page.page.wait_for_timeout(2500)
    chat_page.reload()
    expect(chat_page.warnings).to_contain_text("Interrupted by a reload")
    assert chat_page.answers.inner_text()
    expect(chat_page.questions).to_have_text("hello")
    engine.layers_until_quiet()


def test_two_people_do_not_see_each_other(open_page: OpenPage) -> None:
    one, two = open_page(), open_page(locale="es-ES")
    one.choose_model("slow")
    one.send("first person")
    expect(one.answers).to_have_count(1)
    assert "simpleIA" in two.ask("¿Quién eres?")
    expect(two.questions).to_have_text("¿Quién eres?")
    expect(two.page.locator("#model input")).to_have_value("starter")
    two.page.close()
    one.stop.click()
    expect(one.questions).to_have_text("first person")
    expect(one.warnings).to_contain_text("Stopped by you")
