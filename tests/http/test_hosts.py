"""Under a name that is not the broker's nothing is answered, whatever is asked: the name may have been rebound."""

from __future__ import annotations

from contextlib import closing
from http.client import HTTPConnection
from itertools import product

from http_broker import HttpBroker

from minibrokerd.http.application import PROBES
from minibrokerd.http.routes import ROUTES

FOREIGN = {"Host": "evil.example"}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "QUERY")
NOWHERE = ("/nothing", "/nothing/", "//", "//evil.example/", "/api/v1", "/static", "/static/../log")
UPGRADE = {
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def paths() -> list[str]:
    """Return every path of the table, and what lies beside it."""
    names = {"queue": "q", "id": "1-0", "session": "1", "file": "page.css", "schedule": "s"}
    names |= {"exchange": "e", "group": "g"}
    here = {row.path.format(**names) for row in ROUTES}
    beside = {path.rstrip("/") + "/" for path in here}
    return sorted({*here, *beside, *NOWHERE})


def test_nothing_is_answered_under_a_foreign_name(http_broker: HttpBroker) -> None:
    """No page, no redirect to one, and not that there is none; but for the probes of health."""
    answered = []
    with closing(HTTPConnection(http_broker.url.removeprefix("http://"))) as connection:
        for path, method, more in product(paths(), METHODS, ({}, UPGRADE)):
            connection.request(method, path, headers=FOREIGN | more)
            found = connection.getresponse()
            text = found.read()
            if found.status != 421 or found.getheader("location"):
                answered.append((path, method))
            elif method != "HEAD":
                assert b'"wrong_host"' in text
    assert answered == [each for each in product(sorted(PROBES), ("GET", "HEAD")) for _ in (0, 1)]


def test_a_name_in_the_line_of_the_request_counts_no_more(http_broker: HttpBroker) -> None:
    """A right one does not help a foreign one, and none at all is none of ours."""
    for host in ("evil.example", "evil.example:7273", "127.0.0.1@evil.example"):
        target = f"http://127.0.0.1/clients HTTP/1.1\r\nHost: {host}\r\n\r\n"
        assert http_broker.first_line(f"GET {target}") == "HTTP/1.1 421 Misdirected Request"
    assert http_broker.first_line("GET /clients HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 421")


def test_a_path_is_one_of_the_table_or_none(http_broker: HttpBroker) -> None:
    """No redirect writes the name of a request back to whoever asked."""
    for path in ("/clients/", "/events/", "/api/v1/queues/"):
        found = http_broker.client.get(path)
        assert (found.status_code, found.json()["code"]) == (404, "no_such_path")
