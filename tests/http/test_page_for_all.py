"""The page for whoever uses no eyes or a phone; and whatever names and bodies others have chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import PHONE, barriers, browsing, needs_browser, sign_in
from http_broker import HttpBroker, serving

import minibroker.sync

pytestmark = [needs_browser, pytest.mark.timeout(600)]  # axe-core twice on each kind of page
TAKEN = "document.title='taken'"
HOSTILE = (
    f'<img src=x onerror="{TAKEN}"><script>{TAKEN}</script></textarea></pre><svg onload={TAKEN}>'
    "{{7*7191}}${7*7191}\u202e\u0000\u2028'\"`&lt;"
)
LONG = "w" * 3_000  # with no place to break


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HttpBroker, Any]]:
    """A broker that is full of such things, and an operator's page of it."""
    with (
        serving(tmp_path_factory.mktemp("hostile") / "data") as broker,
        minibroker.sync.connect(broker.server.url, name=HOSTILE[:200]) as connection,
        browsing(broker.url) as page,
    ):
        fill(connection)
        sign_in(page)
        yield broker, page


def fill(connection: Any) -> None:
    """Store messages, of which some die and one is held."""
    queue = connection.queue("mail")
    error = type(HOSTILE.replace("\0", ""), (Exception,), {})
    for body in (HOSTILE, LONG, {HOSTILE: [HOSTILE]}, b"\xff\x00" + HOSTILE.encode()):
        queue.publish(body, key=HOSTILE[:60], headers={HOSTILE[:40]: HOSTILE, "long": LONG})
    for message in queue.receive(4):
        message.reject(error(HOSTILE + LONG))
        queue.publish(message.body)
    connection.ping()
    queue.receive(1)


def paths(broker: HttpBroker) -> list[str]:
    """Return the path of each kind of page."""
    found = broker.client.get("/api/v1/queues/mail.dlq/messages").json()["messages"]
    held = broker.client.get("/api/v1/queues/mail/messages?state=begun").json()["messages"]
    sessions = broker.client.get("/api/v1/sessions").json()["sessions"]
    return [
        "/",
        "/queues/mail",
        "/queues/mail.dlq",
        "/queues/mail.dlq/errors",
        *(f"/queues/mail.dlq/messages/{each['id']}" for each in found),
        *(f"/queues/mail/messages/{each['id']}" for each in held),
        "/clients",
        f"/clients/{sessions[0]['session']}",
        "/log",
        "/events",
        "/sign-in",
    ]


def test_nothing_that_others_chose_is_run_or_breaks_the_page(hostile: Any) -> None:
    """Bodies, headers, keys, errors, names of clients: text, which stays in the width of a phone."""
    broker, page = hostile
    page.set_viewport_size(PHONE)
    for path in paths(broker):
        page.goto(path)
        page.locator("#phase.live").wait_for()
        assert page.title().endswith(" - minibroker"), path
        assert page.locator("main img, main script, main svg[onload]").count() == 0, path
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
        assert "50337" not in page.locator("main").inner_text(), path  # 7 * 7191
    assert page.complaints == []


def test_nothing_keeps_anybody_out(hostile: Any) -> None:
    """axe-core on each page: contrast, names of fields and buttons, tables, headings; and its landmarks."""
    broker, page = hostile
    page.set_viewport_size({"width": 1_180, "height": 800})
    for path in one_of_each(paths(broker)):
        page.emulate_media(color_scheme="light")
        page.goto(path)
        page.locator("#phase.live").wait_for()
        assert barriers(page) == [], path
        page.emulate_media(color_scheme="dark")
        assert barriers(page, "color-contrast") == [], path
        for role in ("banner", "main", "contentinfo"):
            assert page.get_by_role(role).count() == 1, (path, role)
        assert page.get_by_role("navigation", name="Main").count() == 1, path
        assert page.get_by_role("heading", level=1).count() == 1, path
    page.goto("/")
    assert page.get_by_role("search").count() == 1
    assert page.get_by_role("link", name="Queues").get_attribute("aria-current") == "page"


def one_of_each(found: list[str]) -> list[str]:
    """Return the paths without those of a kind that was there before."""
    kinds = {path.rpartition("messages/")[0] or path: path for path in reversed(found)}
    return [path for path in found if path in kinds.values()]
