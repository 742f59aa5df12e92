"""protocol.md, `peek`: a look by a unique key shows who holds it."""

from __future__ import annotations

import pytest
from harness import World


@pytest.mark.parametrize("restart", [False, True])
def test_a_look_by_a_unique_key_shows_the_newest_that_holds_it(restart: bool) -> None:
    """In whatever state it is; nothing for a key that is free, and nothing is changed."""
    world = World()
    client = world.hello()
    client.publish("q", b"other", b"running", uniques=["other", "k"])
    client.receive_all("q")
    client.publish("q", b"waits", uniques=["k"], delay_ms=10_000, unique_mode="replace")
    if restart:
        world.restart(clean=False)
        client = world.hello()
    for key, shown in {"k": [b"waits"], "other": [b"other"], "free": []}.items():
        assert [each["body"] for each in client.peek("q", unique_key=key)] == shown
    assert len(client.peek("q")) == 3
    client.set("plain")
    assert client.peek("plain", unique_key="k") == []
    world.check()


def test_a_look_by_a_unique_key_names_one_message() -> None:
    """So it goes with no order."""
    client = World().hello()
    client.publish("q", b"body", uniques=["k"])
    part = {"op": "peek", "queue": "q", "unique_key": "k", "order": "due", "state": "DELAYED"}
    assert client.request(part)["code"] == "bad_value"
