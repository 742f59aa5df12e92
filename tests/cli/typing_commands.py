"""How tests type commands: as a person or a script does, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from support import warm
from support.broker import BrokerServer

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MINIBROKER_")}


def typed(
    *words: str, stdin: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `minibroker WORDS` to its end."""
    return warm.run(words, {**CLEAN, **(env or {})}, stdin=stdin)


def typed_at(
    server: BrokerServer, *words: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `minibroker WORDS` against a server, which the environment names."""
    return typed(*words, stdin=stdin, env={"MINIBROKER_URL": server.url})


def output(server: BrokerServer, *words: str, stdin: str = "") -> list[str]:
    """Return the lines that a command printed; it must succeed."""
    done = typed_at(server, *words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return [line.rstrip() for line in done.stdout.splitlines()]


def values(server: BrokerServer, *words: str) -> list[Any]:
    """Return what a command printed with --json."""
    return [json.loads(line) for line in output(server, *words, "--json")]


def refusal(server: BrokerServer, code: int, *words: str, stdin: str = "") -> str:
    """Return the message of a command that must end with this exit code and print no result."""
    done = typed_at(server, *words, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    return " ".join(done.stderr.split())
