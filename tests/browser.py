"""Pages in headless Chromium: with nothing but the file, and with everything noted that a page must not do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, sync_playwright

from harness.errors import Unavailable

QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SERIOUS = {"serious", "critical"}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Raises Unavailable where there is none."""
    path = shutil.which("chromium")
    if path is None:
        raise Unavailable("there is no Chromium", "./setup.sh chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """A page, and what it did besides being a page: messages on the console, errors, requests, dialogs."""

    page: Page
    misdeeds: list[str] = field(default_factory=list)

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def visible(self, selector: str) -> int:
        return self.page.locator(f"{selector}:visible").count()

    def texts(self, selector: str) -> list[str]:
        return [text.strip() for text in self.page.locator(selector).all_text_contents()]

    def barriers(self) -> list[str]:
        """What axe-core finds that is serious or worse."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:300]}"
            for each in found
            if each["impact"] in SERIOUS
        ]


@contextmanager
def opened(browser: Browser, path: Path, fragment: str = "", **how: Any) -> Iterator[Seen]:
    """The page of this file. how: of the browser's context, as color_scheme. What it does amiss fails at the end."""
    context = browser.new_context(**how)
    seen = Seen(context.new_page())
    address = path.as_uri()
    seen.page.on("console", lambda message: seen.misdeeds.append(f"console: {message.text}"))
    seen.page.on("pageerror", lambda error: seen.misdeeds.append(f"error: {error}"))
    seen.page.on("dialog", lambda dialog: seen.misdeeds.append(f"dialog: {dialog.message}"))

    def noted(request: Request) -> None:
        if request.url.partition("#")[0] != address and not request.url.startswith(("data:", "blob:")):
            seen.misdeeds.append(f"request: {request.url}")

    seen.page.on("request", noted)
    try:
        seen.page.goto(f"{address}{fragment}")
        yield seen
    finally:
        context.close()
    assert not seen.misdeeds, seen.misdeeds
