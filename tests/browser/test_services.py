"""Services on the network in the page: their models, a key for this page only, and an error that says what to do."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import SERVED, ChatPage
from tests.wire.loopback import Cut, Status, WireServer

KEY = "sk-canary-of-this-page-1234"


def test_a_model_of_a_service_is_chosen_and_answers(served_page: ChatPage, service: WireServer) -> None:
    served_page.choose_model(SERVED)
    expect(served_page.page.locator("#model-state")).to_contain_text("served")

    assert len(served_page.ask("Hello?")) > 20
    assert service.chats[-1].body["messages"][-1]["content"] == "Hello?"


def test_a_key_is_used_shown_by_its_end_and_forgotten(served_page: ChatPage, service: WireServer) -> None:
    served_page.open_tab("models")
    served_page.page.locator("#services button").first.click()
    served_page.page.locator("#key-service input").click()
    served_page.page.get_by_role("option", name="served", exact=True).click()
    served_page.page.locator("#service-key input").fill(KEY)
    served_page.page.locator("#service-key input").press("Enter")
    expect(served_page.page.locator("#services-table")).to_contain_text("…1234")
    expect(served_page.page.locator("#service-key input")).to_have_value("")
    served_page.open_tab("chat")
    served_page.choose_model(SERVED)
    served_page.ask("With a key?")

    assert service.chats[-1].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in served_page.page.content()
    assert KEY not in served_page.page.evaluate("JSON.stringify(localStorage)")
    served_page.open_tab("models")
    served_page.page.click("#forget-key")
    expect(served_page.page.locator("#services-table")).not_to_contain_text("…1234")


def test_an_answer_that_breaks_off_is_kept_and_says_so(served_page: ChatPage, service: WireServer) -> None:
    served_page.choose_model(SERVED)
    service.faults.append(Cut(after=5))
    served_page.send("Break off")
    expect(served_page.warnings).to_contain_text(re.compile("incomplete"))

    assert served_page.answers.last.inner_text()


def test_a_refused_key_says_where_to_type_another(served_page: ChatPage, service: WireServer) -> None:
    served_page.choose_model(SERVED)
    service.faults.append(Status(401, "invalid key"))
    served_page.send("Refuse me")
    expect(served_page.warnings).to_contain_text("SERVED_API_KEY")


def test_the_table_says_who_answers_and_why_another_does_not(served_page: ChatPage, service: WireServer) -> None:
    served_page.open_tab("models")
    served_page.page.locator("#services button").first.click()
    table = served_page.page.locator("#services-table")
    expect(table.get_by_role("row").filter(has_text="served")).to_contain_text("✓ answers")
    expect(table.get_by_role("row").filter(has_text="OpenAI")).to_contain_text(
        "⚠ OpenAI needs a key. Set OPENAI_API_KEY"
    )
    expect(table.get_by_role("row").filter(has_text="Ollama")).to_contain_text("ollama serve")
