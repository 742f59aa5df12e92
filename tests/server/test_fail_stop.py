"""An error of the server's own in the middle of a step ends the process; what was confirmed is there again."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from hand import Hand, frame, part

import minibroker
from minibrokerd.process import exits
from support.broker import COMMAND, STOP_DEADLINE_S, BrokerServer

# The server, with one function that raises once the file is there.
BROKEN = """
import importlib, os, sys
module, name, armed = sys.argv[1:4]
owner = importlib.import_module(module)
*path, last = name.split(".")
for each in path:
    owner = getattr(owner, each)
real = owner[last] if isinstance(owner, dict) else getattr(owner, last)
def broken(*arguments, **named):
    if os.path.exists(armed):
        raise KeyError("injected")
    return real(*arguments, **named)
if isinstance(owner, dict):
    owner[last] = broken
else:
    setattr(owner, last, broken)
from minibrokerd.cli.main import main
sys.argv[:] = ["minibroker", *sys.argv[4:]]
main()
"""

PLACES = (
    "minibrokerd.core.verbs.settling _fail",
    "minibrokerd.core.verbs.attempts _entry",
    "minibrokerd.core.core dispatch",
    "minibrokerd.core.model.state Store.emit",
    "minibrokerd.core.model.state Store.send",
    "minibrokerd.net.connection frame_of",
    "minibrokerd.engine.engine Engine._write",
    "minibrokerd.engine.engine Engine._after_sync",
    "minibrokerd.core.core Core.next_deadline_ms",
    "minibrokerd.core.model.wheel Wheel.advance",
    "minibrokerd.engine.engine Engine._tick",
    "minibrokerd.serving.server Server._report",
)


@pytest.mark.parametrize("place", PLACES)
async def test_an_error_in_the_middle_of_a_step_ends_the_server_and_loses_nothing(
    place: str, tmp_path: Path
) -> None:
    script, armed = tmp_path / "broken.py", tmp_path / "armed"
    script.write_text(BROKEN)
    command = (sys.executable, str(script), *place.split(), str(armed))
    server = BrokerServer(tmp_path / "data", command=command)
    try:
        async with minibroker.connect(server.url, timeout=20) as broker:
            queue = broker.queue("q")
            await queue.set(retry_delay_ms=0)
            await queue.publish_many([b"acked", b"failed", b"held"])
            acked, failed, held = await queue.receive(count=3)
            await acked.ack(confirmed=True)
            armed.touch()
            await failed.nack("one")  # its outcome is open
            code = await asyncio.to_thread(server.process.wait, STOP_DEADLINE_S)
            server.close()  # what it printed is read to its end
            assert code == exits.FAULT, server.output
            assert "fault" in server.output
            assert "KeyError: 'injected'" in server.output
            server.command = COMMAND
            await asyncio.to_thread(server.restart)
            left = {m.id for m in await queue.peek()}
            assert left == {failed.id, held.id}
    finally:
        server.close()


def test_nothing_leaves_the_server_behind_an_error_in_the_middle_of_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the half of the step that ran has changed must be neither written nor told."""
    hand = Hand()
    failed: list[BaseException] = []
    hand.server.engine._on_failed = failed.append  # type: ignore[method-assign]
    peer = hand.login()
    monkeypatch.setattr("minibrokerd.core.core.dispatch", lambda *_: 1 // 0)
    ask = part("consume", queue="q", consumer=1, prefetch=1)
    with pytest.raises(ZeroDivisionError):
        peer.give(frame(ask, request=1))
    assert [type(error) for error in failed] == [ZeroDivisionError]
    hand.settle()
    assert peer.take() == []
