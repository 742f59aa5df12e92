"""`minibroker connections` and `who` against a broker that has clients."""

from __future__ import annotations

import json
import subprocess
import sys

from http_broker import HttpBroker

import minibroker
from minibrokerd import exits


def look(broker: HttpBroker, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command at the HTTP port of `broker`."""
    address = broker.url.removeprefix("http://")
    line = [sys.executable, "-m", "minibrokerd", *words, "--http", address]
    return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)


async def test_who_has_a_message_and_from_where(http_broker: HttpBroker) -> None:
    """Held by a client, named with its address; waiting, it has a state; one that is not there ends with 1."""
    async with minibroker.connect(http_broker.server.url, name="the holder") as connection:
        await connection.queue("other").publish("x")
        first = await connection.queue("mail").publish("a")
        second = await connection.queue("mail").publish("b")
        (message,) = await connection.queue("mail").receive()
        assert message.id == first.id
        held = look(http_broker, "who", str(first.id)).stdout
        assert f"{first.id} in mail is begun by the holder (127.0.0.1:" in held, held
        waits = json.loads(look(http_broker, "who", str(second.id), "--json").stdout)
        assert (waits["queue"], waits["state"], waits["holder"]) == ("mail", "ready", None)
        table = look(http_broker, "connections").stdout
        (line,) = [line for line in table.splitlines() if line.startswith("the holder")]
        assert "127.0.0.1:" in line
        await message.ack(confirmed=True)
    gone = look(http_broker, "who", str(first.id))
    assert (gone.returncode, "no message" in gone.stderr) == (exits.REFUSED, True)


def test_nobody_answers_there() -> None:
    """The message names the flag, and the code is that of every server that is not there."""
    done = subprocess.run(
        [sys.executable, "-m", "minibrokerd", "connections", "--http", "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, "--http" in done.stderr) == (exits.UNREACHABLE, True)
