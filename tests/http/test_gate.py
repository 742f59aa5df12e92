"""Who may ask what: hosts, origins and tokens, in the one place that decides it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from minibrokerd.http.gate import (
    COOKIE_S,
    MOST_TICKETS,
    OPERATOR,
    READER,
    Caller,
    Denied,
    Gate,
    Need,
)
from minibrokerd.http.options import HttpOptions

TOKEN = "sixteen letters and more"
LOCAL = Gate(HttpOptions(token=TOKEN, names=("broker.internal",)))
READ_ONLY = Gate(HttpOptions())
REMOTE = Gate(HttpOptions(host="0.0.0.0", token=TOKEN, is_open=False))
INSECURE = Gate(HttpOptions(host="0.0.0.0"))
HOST = {"host": "127.0.0.1:7273"}
BEARER = HOST | {"authorization": f"Bearer {TOKEN}"}


def denied(gate: Gate, need: Need, headers: dict[str, str], method: str = "POST") -> str:
    """Return the code of the denial; empty: there was none."""
    try:
        gate.check(need, method, headers, "http")
    except Denied as error:
        return error.code
    return ""


@pytest.mark.parametrize(
    ("gate", "headers", "read", "change"),
    [
        (LOCAL, HOST, "", "token_needed"),
        (LOCAL, BEARER, "", ""),
        (LOCAL, HOST | {"authorization": "Bearer wrong"}, "wrong_token", "wrong_token"),
        (LOCAL, HOST | {"authorization": f"Basic {TOKEN}"}, "", "token_needed"),
        (READ_ONLY, HOST, "", "read_only"),
        (READ_ONLY, BEARER, "wrong_token", "wrong_token"),
        (REMOTE, HOST, "token_needed", "token_needed"),
        (REMOTE, BEARER, "", ""),
        (INSECURE, HOST, "", "read_only"),
    ],
)
def test_who_may_what(gate: Gate, headers: dict[str, str], read: str, change: str) -> None:
    """Every kind of port with every kind of caller."""
    assert denied(gate, Need.READ, headers, "GET") == read
    assert denied(gate, Need.CHANGE, headers) == change
    assert denied(gate, Need.NOTHING, headers, "GET") == ""


def test_a_caller_has_a_name_for_events() -> None:
    """Of whoever has the token, and of whoever has none."""
    assert LOCAL.check(Need.CHANGE, "POST", BEARER, "http") is OPERATOR
    assert LOCAL.check(Need.READ, "GET", HOST, "http") is READER


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:7273", True),
        ("[::1]:7273", True),
        ("[fe80::1%eth0]:7273", True),
        ("192.0.2.7:80", True),
        ("localhost:7273", True),
        ("LOCALHOST", True),
        ("broker.internal", True),
        ("", False),
        ("evil.example", False),
        ("evil.example:7273", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("evil.example#127.0.0.1", False),
        ("[::1", False),
        ("0x7f.1", False),
    ],
)
def test_only_names_that_cannot_be_rebound_pass(host: str, passes: bool) -> None:
    """A page of another site has its own name in `Host`, wherever that points."""
    with nullcontext() if passes else pytest.raises(Denied, match="no name of this broker"):
        LOCAL.check_host(host)


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"origin": "http://127.0.0.1:7273"}, True),
        ({"origin": "http://127.0.0.1:7273", "sec-fetch-site": "same-origin"}, True),
        ({"origin": "http://127.0.0.1:8000"}, False),
        ({"origin": "https://127.0.0.1:7273"}, True),  # a proxy has put TLS in front
        ({"origin": "https://127.0.0.1:8000"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
    ],
)
def test_a_page_of_another_site_changes_nothing(headers: dict[str, str], passes: bool) -> None:
    """Even with a token that it should not have."""
    expected = "" if passes else "wrong_origin"
    assert denied(LOCAL, Need.CHANGE, BEARER | headers) == expected
    assert denied(LOCAL, Need.READ, BEARER | headers, "GET") == ""


def test_with_tls_the_page_is_one_of_https_alone() -> None:
    """One without encryption is another site."""
    headers = BEARER | {"origin": "https://127.0.0.1:7273"}
    assert LOCAL.check(Need.CHANGE, "POST", headers, "https") is OPERATOR
    with pytest.raises(Denied, match="another site"):
        LOCAL.check(Need.CHANGE, "POST", headers | {"origin": "http://127.0.0.1:7273"}, "https")


def test_a_browser_that_is_signed_out_goes_no_further() -> None:
    """By its own will, by time, and by too many others: whatever was let in with its cookie."""
    now_s = [0.0]
    gate = Gate(HttpOptions(token=TOKEN), lambda: now_s[0])

    def let_in(ticket: str) -> Caller:
        return gate.check(Need.READ, "GET", HOST, "http", ticket)

    ticket = gate.sign_in(TOKEN)
    caller = let_in(ticket)
    assert caller.name == "operator"
    assert ticket not in repr(caller)
    assert gate.still_lets(caller)
    gate.sign_out(ticket)
    assert not gate.still_lets(caller)
    old = let_in(gate.sign_in(TOKEN))
    now_s[0] = COOKIE_S + 1.0
    assert not gate.still_lets(old)
    first = let_in(gate.sign_in(TOKEN))
    others = [let_in(gate.sign_in(TOKEN)) for _ in range(MOST_TICKETS)]
    assert not gate.still_lets(first)
    assert all(map(gate.still_lets, others))
    assert gate.still_lets(READER)
    assert gate.still_lets(OPERATOR)
