"""The page in a headless Chromium: what it fetches, and keeping it open."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from benchmarks.servers import HOST, Server

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
SETTLE_MILLISECONDS = 3000


@dataclass(frozen=True)
class Page:
    """What opening a page fetched: bytes on the wire, headers included."""

    requests: int
    kilobytes: float
    foreign_hosts: tuple[str, ...]


def chromium() -> str | None:
    """Return a Chromium's path; None where there is none, or no playwright to drive it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if installed := shutil.which("chromium") or shutil.which("chromium-browser"):
        return installed
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return shutil.which(own)


@contextmanager
def open_page(server: Server, browser_path: str) -> Iterator[Page]:
    """Open the server's page with an empty cache, wait until it is quiet, and keep it open during the block."""
    from playwright.sync_api import sync_playwright

    urls: list[str] = []
    sizes: list[float] = []

    def arrived(event: dict[str, Any]) -> None:
        sizes.append(event["encodedDataLength"])

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, headless=True, args=list(ARGUMENTS))
        try:
            page = browser.new_page()
            session = page.context.new_cdp_session(page)
            session.send("Network.enable")
            session.on("Network.loadingFinished", arrived)
            page.on("request", lambda request: urls.append(request.url))
            page.goto(server.url, wait_until="load")
            page.wait_for_selector("textarea", state="attached", timeout=60_000)
            page.wait_for_timeout(SETTLE_MILLISECONDS)
            fetched = [urlsplit(url) for url in urls if urlsplit(url).scheme not in ("data", "blob")]
            foreign = {url.hostname or "" for url in fetched} - {HOST}
            yield Page(len(fetched), round(sum(sizes) / 1000, 1), tuple(sorted(foreign)))
        finally:
            browser.close()
