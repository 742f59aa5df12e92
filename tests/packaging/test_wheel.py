"""What a user gets: the wheel, in an empty environment, far from this checkout."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from support.broker import BrokerServer
from support.source import ROOT

ROUND_TRIP = """
import asyncio, sys
import minibroker

async def main():
    async with minibroker.connect(sys.argv[1]) as broker:
        queue = broker.queue("wheel")
        confirm = await queue.publish({"to": "bob"})
        assert confirm.durability == "sync", confirm
        async with queue.consume() as messages:
            async for message in messages:
                async with message.process():
                    print(minibroker.__file__, message.body["to"])
                break

asyncio.run(main())
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed and return what it printed."""
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_the_wheel_serves_and_carries_a_message(tmp_path: Path) -> None:
    """Build it, install it into an empty environment, serve, publish, consume."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)  # an environment that has nothing is filled from outside
    python = home / "bin" / "python"
    run(*pip, f"--python={python}", "install", wheel, cwd=tmp_path)
    server = BrokerServer(tmp_path / "data", command=(str(home / "bin" / "minibroker"),))
    try:
        printed = run(python, "-I", "-c", ROUND_TRIP, server.url, cwd=tmp_path)
        assert printed.startswith(str(home))
        assert printed.split()[-1] == "bob"
        assert server.stop() == 0
    finally:
        server.close()
