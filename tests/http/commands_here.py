"""Commands in the process of the test: a new interpreter for each would take most of the time of these tests."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from http_broker import HttpBroker

from minibrokerd.cli.main import main

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MINIBROKER_")}


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """All of it."""
        return self.stdout + self.stderr


def here(env: Mapping[str, str], *words: str) -> Done:
    """Run `minibroker WORDS`, with these variables of ours and no others."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, {**CLEAN, **env}, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main.main(list(words))
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


def look(broker: HttpBroker, *words: str) -> Done:
    """Run a command at the HTTP port of `broker`."""
    return here({"MINIBROKER_HTTP": broker.url.removeprefix("http://")}, *words)
