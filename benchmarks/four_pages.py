"""Four people who ask at the same time, each in a Chromium page of their own."""

from __future__ import annotations

from benchmarks.page import ARGUMENTS
from benchmarks.servers import Server

PEOPLE = 4
# From the press of Enter to the first letter of an answer; a place in the line is no answer.
WATCH = """() => {
    const start = performance.now();
    window.firstText = null;
    new MutationObserver(() => {
        const said = [...document.querySelectorAll("#chat [data-testid=bot]")].pop();
        const line = said?.getAttribute("aria-label") ?? "";
        if (window.firstText === null && /[a-z]{2}/.test(said?.innerText ?? "") && !/: [✓⚠] /.test(line)) {
            window.firstText = (performance.now() - start) / 1000;
        }
    }).observe(document.querySelector("#chat"), {subtree: true, childList: true, characterData: true});
}"""


def first_texts(server: Server, browser_path: str, questions: list[str]) -> list[float]:
    """Ask one question in each of as many pages; return the seconds until each has its first text, sorted."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, headless=True, args=list(ARGUMENTS))
        try:
            pages = [browser.new_context().new_page() for _ in questions]
            for page, question in zip(pages, questions, strict=True):
                page.goto(server.url, wait_until="load")
                page.locator("#message textarea").fill(question, timeout=60_000)
            pages[0].wait_for_timeout(3000)
            for page in pages:
                page.evaluate(WATCH)
                page.locator("#message textarea").press("Enter")
            for page in pages:
                page.wait_for_function("window.firstText !== null", timeout=120_000)
            return sorted(float(page.evaluate("window.firstText")) for page in pages)
        finally:
            browser.close()
