"""A real Chromium for tests of the page, and what its pages complain of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from http_broker import TOKEN

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = Axe = None  # type: ignore[assignment, misc]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SETTLED = "Promise.allSettled(document.getAnimations().map((each) => each.finished))"
PHONE = {"width": 390, "height": 844}
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or sync_playwright is None,
    reason="no browser: apt-get install chromium, pip install -e '.[browser]'",
)


@contextmanager
def started() -> Iterator[Any]:
    """Yield a browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, url: str) -> Iterator[Any]:
    """Yield a page that shares no cookies; what it says on its console, or throws, is in `page.complaints`."""
    with browser.new_context(base_url=url) as context:
        page: Any = context.new_page()
        page.set_default_timeout(60_000)
        complaints: list[str] = []

        def note(said: Any) -> None:
            if said.type in ("error", "warning"):
                complaints.append(said.text)

        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.complaints = complaints
        yield page


@contextmanager
def browsing(url: str) -> Iterator[Any]:
    """Yield a page of a browser of its own."""
    with started() as browser, opened(browser, url) as page:
        yield page


def sign_in(page: Any) -> None:
    """Sign in as the operator."""
    page.goto("/sign-in")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_label("Token").press("Enter")
    page.get_by_role("button", name="Sign out").wait_for()


def barriers(page: Any, *rules: str) -> list[str]:
    """Return what axe-core finds on a page that keeps people from using it, and where; by all rules, or these.

    Transitions end first: half-way from one scheme of colours to the other a text has the contrast of neither.
    """
    page.evaluate(SETTLED)
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    return [
        f"{each['id']}: {node['target']} {node.get('failureSummary', '')}"
        for each in Axe().run(page, options=options).response["violations"]
        for node in each["nodes"]
    ]
