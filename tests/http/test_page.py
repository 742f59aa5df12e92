"""The page in a real Chromium: it loads, acts, updates itself, and runs nothing that a message brings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from http_broker import TOKEN, HttpBroker

import minibroker.sync

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None  # type: ignore[assignment]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or sync_playwright is None,
    reason="no browser: apt-get install chromium, pip install playwright",
)
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


@pytest.fixture
def page(http_broker: HttpBroker) -> Iterator[Any]:
    """A page of a browser; what it says on its console, or throws, is in `page.complaints`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page: Any = browser.new_context(base_url=http_broker.url).new_page()
        page.set_default_timeout(60_000)
        complaints: list[str] = []

        def note(said: Any) -> None:
            if said.type in ("error", "warning"):
                complaints.append(said.text)

        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.complaints = complaints
        yield page
        browser.close()


def fill(broker: HttpBroker, dead: int = 1) -> None:
    """Store messages, of which some die, with hostile bodies and errors."""
    # The blocking client: the browser's has a loop that runs in this thread.
    with minibroker.sync.connect(broker.server.url, name="filler") as connection:
        queue = connection.queue("mail")
        queue.publish_many([HOSTILE] * (dead + 2))
        for message in queue.receive(dead):
            message.reject(ValueError(HOSTILE))
        connection.ping()


def test_numbers_change_while_one_looks(http_broker: HttpBroker, page: Any) -> None:
    """Without a reload; and nothing on the console, where a blocked script or style would be."""
    fill(http_broker)
    page.goto("/")
    ready = page.locator('tr[data-queue="mail"] td[data-count="ready"]')
    assert ready.inner_text() == "2"
    fill(http_broker)
    cell = 'tr[data-queue="mail"] td[data-count="ready"]'
    page.locator(cell, has_text="4").wait_for()
    page.locator("[data-chart] .uplot").wait_for()
    assert page.complaints == []


def test_what_a_message_brings_is_shown_and_never_run(http_broker: HttpBroker, page: Any) -> None:
    """Bodies and errors with markup, on every page that shows them."""
    fill(http_broker)
    for path in (
        "/queues/mail",
        "/queues/mail.dlq",
        "/queues/mail.dlq/errors",
        "/queues/mail.dlq/messages/1-0",
        "/events",
    ):
        page.goto(path)
        page.locator("#phase.live").wait_for()
        assert page.title() != "taken"
        assert page.locator("main img, main script").count() == 0
    page.goto("/queues/mail.dlq/messages/1-0")
    assert page.locator("pre").inner_text() == HOSTILE
    assert page.complaints == []


def test_an_operator_signs_in_and_sends_dead_messages_back(
    http_broker: HttpBroker, page: Any
) -> None:
    """Read-only before; then one group of errors goes back to work, and the log says who did it."""
    fill(http_broker, dead=3)
    page.goto("/queues/mail.dlq/errors")
    assert page.get_by_role("button", name="Redrive these").count() == 0
    page.goto("/sign-in")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_label("Token").press("Enter")
    page.get_by_role("button", name="Sign out").wait_for()
    page.goto("/queues/mail.dlq/errors")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Redrive these").click()
    page.get_by_text("Done: 3 messages.").wait_for()
    page.get_by_text("Nothing is dead here.").wait_for()
    assert "http_change action=redrive who=operator" in http_broker.server.output
    assert page.complaints == []
