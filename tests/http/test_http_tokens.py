"""The HTTP port of a broker that asks for tokens: every path by every role, and what becomes of a revoked one."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from http_broker import TOKEN, HttpBroker, StartHttp

from minibrokerd.access import token_file
from minibrokerd.access.rights import Right
from minibrokerd.access.tokens import make
from minibrokerd.http.gate import Need
from minibrokerd.http.routes import API, OPEN
from support.processes import look_until

P, C, M = Right.PUBLISH, Right.CONSUME, Right.MANAGE
WRONG = "mbt_wrong"
AT_ONCE = 16  # requests with a wrong token
MOST_LINES = 100  # of a stream that ends; about 30 looks of one that does not
NOBODY = frozenset({Need.NOTHING})
READS, CHANGES = NOBODY | {Need.READ}, NOBODY | {Need.READ, Need.CHANGE}
# Rights and queues of a token, and what it is good for here; written out, not asked of the code.
ROLES = (
    ({P}, "*", NOBODY),
    ({C}, "*", READS),
    ({M}, "*", READS),
    ({P, M}, "*", CHANGES),
    ({P, C, M}, "*", CHANGES),
    ({P, C, M}, "mail.*", NOBODY),
)


def token(data_dir: Path, may: set[Right], queues: str) -> tuple[str, str]:
    """Make a token; return it and its id."""
    with token_file.changing(data_dir) as rows:
        name = f"role{len(rows)}"
        rights = sorted(may, key=list(Right).index)
        made = make(os.urandom, rows, name=name, queues=[queues], may=rights, created=0)
        rows.append(made.row)
    return made.text, made.row.id


def loaded(broker: HttpBroker, count: int) -> None:
    """Wait until so many tokens are what the server has read last: it may have read fewer on the way there."""
    text = f"tokens_loaded tokens={count}"

    def is_last() -> bool:
        last = [line for line in broker.server.lines if "tokens_loaded tokens=" in line][-1:]
        return any(line.endswith(text) or f"{text} " in line for line in last)

    look_until(is_last, broker.server.process, text)


def status(broker: HttpBroker, row: object, bearer: str) -> int:
    """Ask for a path; return the status."""
    names = {"queue": "mail", "id": "1-0", "session": "1", "schedule": "s"}
    names |= {"exchange": "e", "group": "g"}
    path = row.path.format(**names)  # type: ignore[attr-defined]
    headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
    json = None if row.need is not Need.CHANGE else {"no such": "field"}  # type: ignore[attr-defined]
    with broker.client.stream(row.method, path, headers=headers, json=json) as answer:  # type: ignore[attr-defined]
        return answer.status_code


def test_the_walk_over_http(start_http: StartHttp) -> None:
    """Path x role: refused with 401 without a right token, with 403 with one that is not for it."""
    broker = start_http(token=TOKEN)
    made = [token(broker.server.data_dir, may, queues)[0] for may, queues, _ in ROLES]
    loaded(broker, len(ROLES))
    callers = [("", NOBODY, 401), (WRONG, NOBODY, 401), (TOKEN, CHANGES, 403)]
    callers += [(text, can, 403) for text, (_, _, can) in zip(made, ROLES, strict=True)]
    rows = (*OPEN, *API)
    # The answer to a wrong token waits for two seconds, but only eight of an address do: they are asked together.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = list(pool.map(partial(status, broker, bearer=WRONG), rows))
    cells = 0
    for row, refused in zip(rows, wrong, strict=True):
        for bearer, can, refusal in callers:
            got = refused if bearer == WRONG else status(broker, row, bearer)
            cells += 1
            if row.need in can:
                assert got not in (401, 403), (row.path, got)
            else:
                assert got == refusal, (row.path, bearer[:12], got)
    assert cells > 100
    print(f"{cells} cells over HTTP, {cells} right")


def test_only_pages_send_to_where_one_signs_in(start_http: StartHttp) -> None:
    """Prometheus is told with 401 how to come in; a person gets the form."""
    broker = start_http()
    token(broker.server.data_dir, {C}, "*")
    loaded(broker, 1)
    refused = broker.client.get("/metrics")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    page = broker.client.get("/")
    assert (page.status_code, page.headers["location"]) == (303, "/sign-in")


@pytest.mark.parametrize("bearer", [True, False])
def test_a_revocation_ends_a_stream_that_is_open(start_http: StartHttp, bearer: bool) -> None:
    """Of a token that was revoked; and one that was opened when nobody needed a token."""
    broker = start_http()
    data_dir, headers = broker.server.data_dir, {}
    if bearer:
        headers = {"authorization": f"Bearer {token(data_dir, {C}, '*')[0]}"}
        token(data_dir, {C}, "*")
        loaded(broker, 2)
    with broker.client.stream("GET", "/api/v1/live", headers=headers, timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: look"
        if bearer:
            with token_file.changing(data_dir) as rows:
                del rows[0]
        else:
            token(data_dir, {C}, "*")
        loaded(broker, 1)
        rest = list(islice(lines, MOST_LINES))
    assert len(rest) < MOST_LINES, "the stream goes on"


def test_with_tokens_other_machines_may_come(start_http: StartHttp, tmp_path: Path) -> None:
    """No token of the port is needed beside them, and when the last has gone it stays closed."""
    text, _ = token(tmp_path, {P, C, M}, "*")
    broker = start_http("--http", "0.0.0.0:0", data_dir=tmp_path)
    headers = {"authorization": f"Bearer {text}"}
    broker.server.prints("can_change=true")
    assert broker.client.get("/api/v1/overview", headers=headers).json()["can_change"] is True
    assert broker.client.get("/api/v1/overview").status_code == 401
    with token_file.changing(tmp_path) as rows:
        rows.clear()
    loaded(broker, 0)
    assert broker.client.get("/api/v1/overview").status_code in (401, 403)


def test_what_the_port_does_itself_needs_no_token(start_http: StartHttp) -> None:
    """Its own client stays when the door is shut, and is named as whoever asked."""
    broker = start_http()
    text, id = token(broker.server.data_dir, {P, C, M}, "*")
    loaded(broker, 1)
    bearer = {"authorization": f"Bearer {text}"}
    stored = broker.client.post("/api/v1/queues/q/messages", json={"text": "x"}, headers=bearer)
    assert stored.status_code == 200, stored.text
    shown = broker.client.get("/api/v1/queues/q/messages", headers=bearer)
    assert len(shown.json()["messages"]) == 1
    broker.server.prints("who=role0")
    assert broker.client.get("/api/v1/queues").status_code == 401
    with token_file.changing(broker.server.data_dir) as rows:
        rows.clear()
    loaded(broker, 0)
    assert id
    assert broker.client.get("/api/v1/queues", headers=bearer).status_code == 401
    assert text not in broker.server.output


def test_a_browser_is_signed_out_by_a_revocation(start_http: StartHttp) -> None:
    """The cookie is worth what the token is worth."""
    broker = start_http()
    text, _ = token(broker.server.data_dir, {P, C, M}, "*")
    narrow, _ = token(broker.server.data_dir, {C}, "*")
    loaded(broker, 2)
    refused = broker.client.post("/sign-in", data={"token": narrow})
    assert refused.headers["location"].endswith("wrong=1")
    assert broker.client.post("/sign-in", data={"token": text}).headers["location"] == "/"
    assert broker.client.get("/api/v1/queues").status_code == 200
    with token_file.changing(broker.server.data_dir) as rows:
        rows[:] = [row for row in rows if row.may == [C]]
    loaded(broker, 1)
    assert broker.client.get("/api/v1/queues").status_code == 401


def test_the_limits_of_a_token_hold_over_http(start_http: StartHttp) -> None:
    """A publish, and a message that is published again, count as those of a client do."""
    broker = start_http()
    with token_file.changing(broker.server.data_dir) as rows:
        fields = {"name": "a", "queues": ["*"], "may": [P, M], "created": 0, "max_rate": 1}
        made = make(os.urandom, rows, **fields)
        rows.append(made.row)
    loaded(broker, 1)
    headers = {"authorization": f"Bearer {made.text}"}
    path, json = "/api/v1/queues/mail/messages", {"text": "x"}
    answers = [broker.client.post(path, json=json, headers=headers) for _ in range(5)]
    assert answers[0].status_code == 200
    busy = [each.json()["text"] for each in answers if each.status_code == 503]
    assert "may publish 1 messages a second" in busy[0]
    again = f"{path}/{answers[0].json()['id']}/requeue"
    answers = [broker.client.post(again, json={}, headers=headers) for _ in range(5)]
    assert {each.json()["code"] for each in answers if each.status_code == 503} == {"busy"}
