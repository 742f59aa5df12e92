"""A real broker with its HTTP port on a free port, and a client of it."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from support.broker import BrokerServer
from support.processes import look_until

TOKEN = "a token for the tests of HTTP"
HTTP = re.compile(r"^  http +(http://\S+)")


class HttpBroker:
    """A broker and its page."""

    def __init__(self, server: BrokerServer) -> None:
        self.server = server
        self.client = httpx.Client(trust_env=False)
        self.find()

    def find(self) -> None:
        """Take the address that the broker has printed last."""
        self.url = [found[1] for line in self.server.lines if (found := HTTP.match(line))][-1]
        self.client.base_url = httpx.URL(self.url)

    def restart(self) -> None:
        """Start the broker again; its page has another port then."""
        before = len(self.server.lines)
        self.server.restart()
        look_until(
            lambda: any("  recovered " in line for line in self.server.lines[before:]),
            self.server.process,
            "a banner",
        )
        self.find()
        self.wait()

    def wait(self) -> None:
        """Return when the port answers."""
        look_until(self._answers, self.server.process, "its page answers")

    def first_line(self, request: str) -> str:
        """Send a request as it stands here; return the first line of the answer."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), 10) as sock:
            sock.sendall(request.encode())
            with sock.makefile() as answer:
                return answer.readline().rstrip()

    def _answers(self) -> bool:
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def serving(data_dir: Path, *flags: str) -> Iterator[HttpBroker]:
    """Run one, with a token, for more than one test."""
    env = {"MINIBROKER_NO_HTTP": "0", "MINIBROKER_HTTP_TOKEN": TOKEN}
    server = BrokerServer(data_dir, "--http", "127.0.0.1:0", *flags, env=env)
    try:
        look_until(
            lambda: any("  recovered " in line for line in server.lines), server.process, "a banner"
        )
        broker = HttpBroker(server)
        broker.wait()
        yield broker
        broker.client.close()
    finally:
        server.close()


StartHttp = Callable[..., HttpBroker]
