"""The page in a real Chromium: it loads, acts, updates itself, and runs nothing that a message brings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import needs_browser, opened, sign_in, started
from http_broker import HttpBroker

import minibroker.sync

pytestmark = needs_browser
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all."""
    with started() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, http_broker: HttpBroker) -> Iterator[Any]:
    """A page of it."""
    with opened(browser, http_broker.url) as page:
        yield page


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
    assert (
        page.locator('tr[data-queue="mail"] td[data-span="run_p95_ms"]').inner_text()
        != "\N{EN DASH}"
    )
    page.goto("/queues/mail")
    assert "Handlers wanted" in page.locator("dl.tiles").inner_text()
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
    sign_in(page)
    page.goto("/queues/mail.dlq/errors")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Redrive these").click()
    page.get_by_text("Done: 3 messages.").wait_for()
    page.get_by_text("Nothing is dead here.").wait_for()
    http_broker.server.prints("http_change action=redrive who=operator")
    assert page.complaints == []


def test_the_page_needs_no_mouse(http_broker: HttpBroker, page: Any) -> None:
    """From the top of the page, with the keys Tab, Enter and those of fields: to a queue, and something done."""
    with minibroker.sync.connect(http_broker.server.url) as connection:
        connection.queue("mail").publish_many([b"m"] * 3)
    sign_in(page)
    page.locator("tr[data-queue=mail]").wait_for()
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(focused(page))
        if seen[-1] == "mail":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert (seen[-1], outline) == ("mail", "solid")
    page.keyboard.press("Enter")
    page.wait_for_url("**/queues/mail")
    page.on("dialog", lambda dialog: dialog.accept())
    reach(page, "Purge")
    page.keyboard.press("Enter")
    page.get_by_text("Done: 3 messages.").wait_for()
    page.locator("dd[data-count=ready]", has_text="0").wait_for()
    assert page.complaints == []


def focused(page: Any) -> str:
    """Return the text of what has the focus."""
    return str(page.evaluate("(document.activeElement.innerText || '').trim()"))


def reach(page: Any, text: str) -> None:
    """Press Tab until what has this text has the focus."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if focused(page) == text:
            return
    raise AssertionError(f"no way to {text!r} with Tab")


def test_an_operator_sets_keys_and_publishes_what_is_unique(
    http_broker: HttpBroker, page: Any
) -> None:
    """A weight and a pause out of one form, the pause ended by a button; the second of a unique key says so."""
    fill(http_broker)
    sign_in(page)
    page.goto("/queues/mail")
    keys = page.locator('form[data-api$="/keys"][data-fields]')
    keys.get_by_label("Key").fill("true")
    keys.get_by_label("Weight").fill("3")
    keys.get_by_label("State").select_option("paused")
    keys.get_by_role("button", name="Set").click()
    row = page.locator("tr", has=page.get_by_role("button", name="Resume"))
    row.wait_for()
    assert row.locator("td").first.inner_text() == "3"
    row.get_by_role("button", name="Resume").click()
    page.locator("tr", has_text="on").get_by_role("button", name="Pause").wait_for()
    for said in ("Stored as", "It is there already, as"):
        form = page.locator('form[data-fields="message"]')
        form.get_by_label("Body").fill("1")
        form.get_by_label("Unique key").fill("u")
        form.get_by_label("Priority").fill("7")
        form.get_by_role("button", name="Publish").click()
        page.get_by_text(said).wait_for()
    assert page.complaints == []
