"""A process that forks while it has a connection: forking.py URL. Both print what they are told."""

from __future__ import annotations

import asyncio
import os
import sys

import minibroker


def session_of(broker: minibroker.Broker) -> int | None:
    """Return the session id, which is no part of the public API."""
    return broker._driver.session.session_id


async def child(url: str, old: minibroker.Queue[bytes]) -> None:
    """Try the parent's connection, then open one."""
    try:
        await old.publish(b"stolen", timeout=1)
    except minibroker.MinibrokerError as error:
        print("child_on_old", type(error).__name__, flush=True)
    async with minibroker.connect(url) as broker:
        print("child_session", session_of(broker), flush=True)
        await broker.queue("jobs").publish(b"child")


async def main(url: str) -> None:
    """Publish, fork, wait for the child, publish again."""
    async with minibroker.connect(url) as broker:
        queue: minibroker.Queue[bytes] = broker.queue("jobs")
        await queue.publish(b"parent")
        print("parent_session", session_of(broker), flush=True)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                asyncio.run(child(url, queue))
                code = 0
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        await queue.publish(b"parent again")
        print("parent_session_later", session_of(broker), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
