"""The page of a broker with 10,000 queues and very many dead messages, in a real Chromium.

`make page` has 100,000 dead messages, and prints how long each page took to load. To make them takes 10 s of the
processors, so the tests of every day have 20,000.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from browser import browsing, needs_browser, sign_in
from http_broker import HttpBroker, serving

import minibroker

pytestmark = needs_browser
QUEUES = 10_000
DEAD = int(os.environ.get("DEAD", "20000"))
FRAME = 1_000
LONGEST_S = (
    10.0  # of a load, on a machine that does much else; measured ones are in docs/performance.md
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpBroker]:
    """A broker that is as full."""
    with serving(tmp_path_factory.mktemp("large") / "data") as broker:
        yield broker


@pytest.fixture(scope="module")
def page(broker: HttpBroker) -> Iterator[Any]:
    """An operator's page of it."""
    asyncio.run(fill(broker.server.url))
    with browsing(broker.url) as page:
        sign_in(page)
        yield page


async def fill(url: str) -> None:
    """Make the queues, and let messages die of four things."""
    async with minibroker.connect(url) as connection:
        queue = connection.queue("orders")
        for at in range(0, QUEUES, 500):
            names = (f"queue-{n:05}" for n in range(at, at + 500))
            await asyncio.gather(*(connection.queue(name).set() for name in names))
        for frame in range(DEAD // FRAME):
            await queue.publish_many([{"order": frame * FRAME + n} for n in range(FRAME)])
            messages = await queue.receive(FRAME)
            errors = [ValueError(f"no stock of {n}") for n in range(3)] + [KeyError("to")]
            await asyncio.gather(*(each.reject(errors[at % 4]) for at, each in enumerate(messages)))


def load(page: Any, path: str) -> float:
    """Open a path; return for how many seconds it loaded, until it is live."""
    began_s = time.monotonic()
    page.goto(path)
    page.locator("#phase.live").wait_for()
    took_s = time.monotonic() - began_s
    print(f"{path}: {1_000 * took_s:.0f} ms")
    assert took_s < LONGEST_S
    return took_s


def names(page: Any) -> list[str]:
    """Return the first column of the list."""
    found: list[str] = page.locator("#list tbody th").all_inner_texts()
    return found


def test_10000_queues_in_pages_and_by_name(broker: HttpBroker, page: Any) -> None:
    """A hundred at a time, by cursor; a part of a name finds its queues as one types; one of them stays live."""
    load(page, "/")
    assert names(page)[:2] == ["orders", "orders.dlq"]
    assert page.locator("#list caption").inner_text() == "10,002 queues, the first 100"
    page.get_by_role("link", name="Next page").click()
    page.wait_for_url(re.compile("after="))
    page.locator("tr[data-queue=queue-00098]").wait_for()
    assert names(page) == [f"queue-{n:05}" for n in range(98, 198)]
    page.get_by_role("searchbox", name="Name").fill("queue-0777")
    page.locator("#list caption", has_text="10 queues").wait_for()
    assert names(page) == [f"queue-{n:05}" for n in range(7770, 7780)]
    assert "match=queue-0777" in page.url
    assert broker.client.get("/api/v1/queues/queue-07777").status_code == 200
    page.get_by_label("Order").select_option("published")
    page.get_by_role("searchbox", name="Name").fill("")
    page.locator("#list caption", has_text="10,002 queues").wait_for()
    assert names(page)[0] == "orders"
    assert page.complaints == []


def test_many_dead_messages_by_error_in_pages_and_back(broker: HttpBroker, page: Any) -> None:
    """Fifty at a time, by cursor, without one twice; by what they died of, all of them; and a group goes back."""
    load(page, "/queues/orders.dlq")
    first = names(page)
    page.get_by_role("link", name="Next page").click()
    page.wait_for_url(re.compile("after="))
    page.locator("#phase.live").wait_for()
    second = names(page)
    assert (len(first), len(second)) == (50, 50)
    assert not set(first) & set(second)
    load(page, "/queues/orders.dlq/errors")
    rows = page.locator("main tbody tr")
    assert rows.count() == 2
    assert re.sub(r"\s+", " ", rows.nth(0).inner_text()).startswith(
        f"{DEAD * 3 // 4:,} ValueError no stock of #"
    )
    assert rows.nth(1).locator("td").first.inner_text() == f"{DEAD // 4:,}"
    page.on("dialog", lambda dialog: dialog.accept())
    rows.nth(1).get_by_role("button", name="Redrive these").click()
    page.get_by_text(f"Done: {DEAD // 4:,} messages.").wait_for()
    counts = broker.client.get("/api/v1/queues/orders").json()["counts"]
    assert counts["ready"] == DEAD // 4
    assert page.complaints == []
