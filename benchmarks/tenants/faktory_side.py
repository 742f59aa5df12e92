"""The side of Faktory over its protocol (its free edition: no rates, no cron, and `unique_for` does nothing)."""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

# What is added: how many, the queue, and what else the job says.
ADD: dict[str, tuple[int, str, dict[str, Any]]] = {
    "big": (200, "big", {}),
    "small": (10, "small", {}),
    "limited": (30, "limited", {}),
    "free": (30, "free", {}),
    "normal": (100, "jobs", {}),
    "urgent": (1, "urgent", {}),
    "same": (1, "jobs", {"custom": {"unique_for": 60}}),
}
QUEUES = ["big", "small", "limited", "free", "jobs"]


class Faktory:
    """A connection."""

    def __init__(self) -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", urlsplit(os.environ["STORY_URL"]).port or 0)
        )
        self.stream = self.socket.makefile("rwb")
        self.stream.readline()
        hello = {
            "v": 2,
            "wid": uuid.uuid4().hex,
            "hostname": "story",
            "pid": os.getpid(),
            "labels": [],
        }
        self.ask("HELLO", hello)

    def ask(self, verb: str, value: object) -> bytes | None:
        """Send a command; return its answer, None for none."""
        text = value if isinstance(value, str) else json.dumps(value)
        self.stream.write(f"{verb} {text}\r\n".encode())
        self.stream.flush()
        line = self.stream.readline().strip()
        if line.startswith(b"-"):
            raise RuntimeError(line.decode())
        if not line.startswith(b"$"):
            return line
        size = int(line[1:])
        return None if size < 0 else self.stream.read(size + 2)[:-2]


def main() -> None:
    """Work, or add."""
    server = Faktory()
    if sys.argv[1] == "add":
        count, queue, more = ADD[sys.argv[2]]
        for _ in range(count):
            server.ask(
                "PUSH",
                {
                    "jid": uuid.uuid4().hex,
                    "queue": queue,
                    "jobtype": "job",
                    "args": [sys.argv[2]],
                    **more,
                },
            )
        return
    while True:
        # The order is strict, so who wants turns shuffles it: what the workers in other languages do by weights.
        answer = server.ask("FETCH", " ".join(["urgent", *random.sample(QUEUES, len(QUEUES))]))
        if not answer:
            continue
        job = json.loads(answer)
        (tenant,) = job["args"]
        with open(os.environ["STORY_STARTS"], "a") as starts:
            starts.write(f"{time.time_ns() // 1_000_000} {tenant}\n")
        time.sleep(8 if tenant == "same" else 0.05)
        server.ask("ACK", {"jid": job["jid"]})


main()
