"""A real broker with its HTTP port on a free port, and a client of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx

from support.broker import BrokerServer
from support.processes import look_until

TOKEN = "a token for the tests of HTTP"
HTTP = re.compile(r"^  http +(http://\S+)")


class HttpBroker:
    """A broker and its page."""

    def __init__(self, server: BrokerServer) -> None:
        self.server = server
        (self.url,) = {found[1] for line in server.lines if (found := HTTP.match(line))} or {""}
        self.client = httpx.Client(base_url=self.url, trust_env=False)

    def wait(self) -> None:
        """Return when the port answers."""
        look_until(self._answers, self.server.process, "its page answers")

    def _answers(self) -> bool:
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False


StartHttp = Callable[..., HttpBroker]
