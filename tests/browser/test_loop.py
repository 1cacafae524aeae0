"""The loop in Chromium: rate, correct, build, train, reload, stop, resume, and talk to the model that learnt it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import ChatPage, OpenPage

TRAINING_MS = 150_000
QUESTION = "What time do you open?"
WANTED = "We open at nine and close at six."


def correct(chat: ChatPage, question: str, wanted: str) -> None:
    """Ask, and put the wanted answer in the place of the one that came."""
    chat.ask(question)
    chat.page.locator("#chat button[aria-label='Edit']:visible").last.click()
    chat.page.locator("#chat textarea").last.fill(wanted)
    chat.press("Submit")
    expect(chat.answers.last).to_have_text(wanted)


def open_row(page: Page, words: str) -> None:
    page.locator("#feedback-table").get_by_text(words).last.click()
    expect(page.locator("#feedback-editor")).to_be_visible()


def test_a_thumb_is_kept_over_a_reload_and_can_be_taken_back(chat_page: ChatPage) -> None:
    chat_page.ask("Who are you?")
    chat_page.page.locator("#chat button[aria-label='Like']:visible").click()
    expect(chat_page.page.locator("#comment-row")).to_be_visible()
    chat_page.reload()
    liked = chat_page.page.locator("#chat button[aria-label='Liked']:visible")
    expect(liked).to_have_count(1)
    liked.click()
    chat_page.reload()
    expect(chat_page.page.locator("#chat button[aria-label='Like']:visible")).to_have_count(1)
    expect(liked).to_have_count(0)


def test_only_answers_can_be_rated(chat_page: ChatPage) -> None:
    chat_page.ask("Who are you?")
    chat_page.ask("Thanks")
    expect(chat_page.page.locator("#chat button[aria-label='Like']:visible")).to_have_count(2)
    expect(chat_page.page.locator("#chat button[aria-label='Retry']:visible")).to_have_count(1)


def test_a_comment_and_a_correction_show_in_the_feedback_tab(chat_page: ChatPage) -> None:
    page = chat_page.page
    correct(chat_page, "Where is the ferry?", "At pier seven.")
    page.locator("#chat button[aria-label='Dislike']:visible").click()
    page.fill("#comment textarea", "It made that up")
    page.press("#comment textarea", "Enter")
    expect(page.get_by_text("Your comment is kept.")).to_be_visible()
    chat_page.open_tab("feedback")
    open_row(page, "Where is the ferry?")
    expect(page.locator("#feedback-conversation [data-testid=user]")).to_have_text("Where is the ferry?")
    expect(page.locator("#feedback-correction textarea")).to_have_value("At pier seven.")
    expect(page.locator("#feedback-comment textarea")).to_have_value("It made that up")
    page.fill("#feedback-correction textarea", "At pier eight.")
    page.click("#feedback-save")
    expect(page.locator("#feedback-table")).to_contain_text("At pier eight.")
    page.click("#feedback-delete")
    page.click("#feedback-delete-confirm")
    expect(page.locator("#feedback-editor")).to_be_hidden()
    expect(page.locator("#feedback-table")).not_to_contain_text("ferry")


def test_the_answer_itself_is_no_correction(chat_page: ChatPage) -> None:
    answer = chat_page.ask("Thanks")
    chat_page.page.locator("#chat button[aria-label='Edit']:visible").last.click()
    chat_page.press("Submit")
    expect(chat_page.page.get_by_text("The correction is the answer itself.")).to_be_visible()
    expect(chat_page.answers).to_have_text(answer)


def test_feedback_is_filtered_exported_and_imported(chat_page: ChatPage, tmp_path: Path) -> None:
    page = chat_page.page
    correct(chat_page, "Where is the lighthouse?", "On the north cape.")
    chat_page.open_tab("feedback")
    expect(page.locator("#feedback-table")).to_contain_text("On the north cape.")
    page.fill("#feedback-words textarea", "lighthouse")
    page.press("#feedback-words textarea", "Enter")
    expect(page.locator("#feedback-count")).to_contain_text("1 of 1")
    with page.expect_download() as download:
        page.click("#feedback-export")
    lines = Path(download.value.path()).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["correction"] for row in rows] == ["On the north cape."]
    rows[0] |= {"correction": "On the south cape."}
    file = tmp_path / "feedback.jsonl"
    file.write_text(json.dumps(rows[0]) + "\nnot json\n")
    page.get_by_test_id("Import-upload-button").set_input_files(file)
    expect(page.get_by_text("Rows left out: 1")).to_be_visible()
    expect(page.locator("#feedback-table")).to_contain_text("On the south cape.")


@pytest.mark.timeout(420)  # It trains a whole run, stopped and resumed.
def test_from_a_correction_to_the_model_that_learnt_it(chat_page: ChatPage) -> None:
    page = chat_page.page
    for question in (QUESTION, "When are you open?", "Tell me the opening hours"):
        correct(chat_page, question, WANTED)
    chat_page.open_tab("finetune")
    page.click("#build-dataset")
    expect(page.locator("#dataset-report")).to_contain_text("Rows to learn")
    expect(page.locator("#dataset-preview mark").first).to_have_text(f"{WANTED}<|im_end|>")
    page.click("#start-run")
    state = page.locator("#run-state")
    expect(state).to_contain_text(re.compile(r"Training · step \d+ of 140 · loss [\d.]+"), timeout=TRAINING_MS)
    expect(page.locator("#loss-curve canvas, #loss-curve svg").first).to_be_visible()

    chat_page.reload()
    chat_page.open_tab("finetune")
    expect(state).to_contain_text(re.compile(r"step \d+ of 140"))
    page.click("#stop-run")
    expect(state).to_contain_text("Stopped", timeout=TRAINING_MS)
    page.click("#resume-run")
    expect(state).to_contain_text("Finished · step 140 of 140", timeout=TRAINING_MS)
    expect(page.locator("#loss-curve canvas, #loss-curve svg").first).to_be_visible()

    page.click("#use-run")
    expect(page.locator("#model input")).to_have_value(re.compile("tuned/starter-"))
    expect(page.locator("#chat")).to_be_visible()
    chat_page.press("Clear")
    chat_page.set_number("panel-temperature", 0)
    assert chat_page.ask(QUESTION) == WANTED
    chat_page.choose_model("starter")
    chat_page.press("Clear")
    assert chat_page.ask(QUESTION) != WANTED


def test_the_tab_says_what_to_do_where_there_is_nothing(open_page: OpenPage) -> None:
    chat = open_page(locale="es-ES")
    chat.open_tab("feedback")
    chat.page.fill("#feedback-words textarea", "nobody ever wrote this")
    chat.page.press("#feedback-words textarea", "Enter")
    expect(chat.page.locator("#feedback-count")).to_contain_text("Aún no hay nada")
