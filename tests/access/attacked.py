"""A broker that is attacked while another client, in a process of its own, asks it for signs of life."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attacks import ATTACKS

from minibrokerd.access import token_file
from minibrokerd.access.rights import Right
from minibrokerd.access.tokens import make
from support.broker import BrokerServer

PINGER = Path(__file__).with_name("pinger.py")


def allow_everything(data_dir: Path) -> str:
    """Make a token."""
    with token_file.changing(data_dir) as rows:
        made = make(os.urandom, rows, name="all", queues=["*"], may=list(Right), created=0)
        rows.append(made.row)
    return made.text


@contextmanager
def pinging(url: str, **env: str) -> Iterator[dict[str, float]]:
    """Have somebody ping meanwhile; what came of it stands in the dict at the end."""
    process = subprocess.Popen(
        [sys.executable, str(PINGER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MINIBROKER_URL": url, **env},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    found: dict[str, float] = {}
    try:
        yield found
    finally:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, "a ping failed"
    found |= json.loads(out)


def attacked(
    server: BrokerServer, name: str, count: int, url: str, **env: str
) -> tuple[int, dict[str, float]]:
    """Attack the broker; return how many attempts were refused, and how long pings took meanwhile, in ms."""
    with pinging(url, **env) as found:
        refused = asyncio.run(_count(ATTACKS[name](server.host, server.port, count)))
    return refused, found


async def _count(work: object) -> int:
    return int(await work)  # type: ignore[misc]
