"""Pictures in the conversation: sent by the button, by pasting and by dropping; kept, taken back, and refused."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from gradio.utils import get_upload_folder
from PIL import Image as Pillow
from playwright.sync_api import Locator, expect

from core.images import MAX_BYTES
from tests.browser.conftest import SERVED, ChatPage, OpenPage
from tests.wire.loopback import WireServer

HAND_OVER = """([data, name, kind]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
    const [target, event] = kind === "paste"
        ? ["#message textarea", new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })]
        : ["#message [role=group]", new DragEvent("drop", { dataTransfer: transfer, bubbles: true })];
    document.querySelector(target).dispatchEvent(event);
}"""


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (64, 48), colour).save(file, "PNG")
    return file.getvalue()


def attach(chat: ChatPage, name: str, data: bytes) -> None:
    """Choose a file with the button's own chooser, and wait until it is uploaded."""
    before = thumbnails(chat).count()
    chat.page.locator("#message input[type=file]").set_input_files(
        {"name": name, "mimeType": "image/png", "buffer": data}
    )
    expect(thumbnails(chat)).to_have_count(before + 1)


def thumbnails(chat: ChatPage) -> Locator:
    return chat.page.locator("#message .thumbnail-item")


def pictures(chat: ChatPage) -> Locator:
    return chat.page.locator("#chat .message-row img")


def seen(service: WireServer) -> list[bytes]:
    """Return the pictures of the last request, in their order."""
    contents = [message["content"] for message in service.chats[-1].body["messages"]]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return [base64.b64decode(part["image_url"]["url"].split(",")[1]) for part in parts if part["type"] == "image_url"]


@pytest.fixture
def chat(served_page: ChatPage) -> ChatPage:
    """A page with a model that sees."""
    served_page.choose_model(SERVED)
    return served_page


def test_pictures_reach_the_model_and_stay_in_the_conversation(chat: ChatPage, service: WireServer) -> None:
    attach(chat, "red.png", png("red"))
    attach(chat, "blue.png", png("blue"))
    chat.ask("What do you see?")

    assert seen(service) == [png("red"), png("blue")]
    expect(thumbnails(chat)).to_have_count(0)
    expect(pictures(chat)).to_have_count(2)
    assert pictures(chat).evaluate_all("(all) => all.every((one) => one.naturalWidth === 64)")
    chat.ask("And now?")
    assert seen(service) == [png("red"), png("blue")], "the model still sees the earlier ones"
    chat.press("Retry")
    expect(chat.figures).to_have_count(2)
    assert seen(service) == [png("red"), png("blue")]


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_picture_is_pasted_or_dropped(chat: ChatPage, service: WireServer, kind: str) -> None:
    chat.page.evaluate(HAND_OVER, [base64.b64encode(png("green")).decode(), "image.png", kind])
    expect(thumbnails(chat)).to_have_count(1)
    chat.ask("What is this?")

    assert seen(service) == [png("green")]


def test_an_edited_message_keeps_its_picture_and_undo_gives_it_back(chat: ChatPage, service: WireServer) -> None:
    attach(chat, "red.png", png("red"))
    chat.ask("What do you see?")
    expect(chat.page.locator("#chat .message-row:has(img) + .message-buttons button[aria-label=Edit]")).to_be_hidden()
    chat.page.locator("#chat button[aria-label=Edit]:visible").first.click()
    chat.page.locator("#chat textarea").fill("Which colour?")
    chat.press("Submit")
    expect(chat.figures).to_have_count(1)
    expect(chat.questions.last).to_contain_text("Which colour?")
    assert seen(service) == [png("red")]
    chat.press("Undo")
    expect(pictures(chat)).to_have_count(0)
    expect(chat.message).to_have_value("Which colour?")
    expect(thumbnails(chat)).to_have_count(1)
    chat.message.press("Enter")
    expect(chat.figures).to_have_count(1)
    assert seen(service) == [png("red")]


def test_a_reload_keeps_a_picture_and_says_when_it_is_gone(chat: ChatPage, service: WireServer) -> None:
    attach(chat, "kept.png", png("yellow"))
    chat.ask("What do you see?")
    chat.reload()
    expect(pictures(chat)).to_have_count(1)
    chat.choose_model(SERVED)
    chat.ask("Still there?")
    assert seen(service) == [png("yellow")]
    for file in list(Path(get_upload_folder()).rglob("kept.png")):
        shutil.rmtree(file.parent)
    chat.ask("And now?")
    assert seen(service) == []
    expect(chat.warnings).to_contain_text("The picture kept.png was not kept.")
    chat.reload()
    expect(pictures(chat)).to_have_count(0)
    expect(chat.warnings).to_contain_text("The picture kept.png was not kept.")


def test_a_model_that_does_not_see_refuses_and_the_message_stays(chat_page: ChatPage) -> None:
    attach(chat_page, "red.png", png("red"))
    chat_page.send("What do you see?")
    expect(chat_page.page.get_by_text("starter cannot see pictures.")).to_be_visible()

    expect(chat_page.message).to_have_value("What do you see?")
    expect(thumbnails(chat_page)).to_have_count(1)
    expect(chat_page.questions).to_have_count(0)
    chat_page.page.locator("#message button.delete-button").click()
    assert chat_page.ask("Hello")


def test_a_conversation_with_pictures_goes_on_with_a_model_that_does_not_see(chat: ChatPage) -> None:
    attach(chat, "red.png", png("red"))
    chat.ask("What do you see?")
    chat.choose_model("starter")
    chat.ask("Hello")

    expect(chat.figures.last).to_contain_text("Earlier pictures that starter does not get: 1.")


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("page.png", b"<svg onload=alert(1)>", "This is no picture that models can read."),
        ("big.png", png("red") + bytes(MAX_BYTES), "A picture may have at most 5 MB."),
    ],
)
def test_what_cannot_be_sent_stays_in_the_box(chat: ChatPage, name: str, data: bytes, sentence: str) -> None:
    attach(chat, name, data)
    chat.send("What do you see?")
    expect(chat.page.get_by_text(sentence)).to_be_visible()

    expect(chat.message).to_have_value("What do you see?")
    expect(thumbnails(chat)).to_have_count(1)
    expect(chat.questions).to_have_count(0)


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_a_conversation_with_pictures(open_served: OpenPage, dark: bool) -> None:
    chat = open_served(width=390, height=844, locale="es-ES", dark=dark)
    chat.choose_model(SERVED)
    attach(chat, "ancho.png", png("purple"))
    chat.ask("¿Qué ves?")
    attach(chat, "otra.png", png("orange"))
    widths = chat.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    found = [
        (violation["id"], [node["html"][:120] for node in violation["nodes"][:3]])
        for violation in Axe().run(chat.page).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]

    assert widths[0] <= widths[1]
    assert found == []
    expect(chat.page.get_by_role("button", name=re.compile("Adjuntar"))).to_be_visible()
