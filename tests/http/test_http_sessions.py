"""What a sign-out ends, and what a wrong token costs whoever gives it; real brokers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import httpx
from http_broker import TOKEN, HttpBroker

RIGHT = {"authorization": f"Bearer {TOKEN}"}
WRONG = {"authorization": "Bearer of bad news"}
MOST_LINES = 100  # of a stream that ends; about 30 looks of one that does not


def test_a_sign_out_ends_the_streams_of_that_sign_in_alone(http_broker: HttpBroker) -> None:
    """The stream of another browser goes on."""
    url = http_broker.url
    with (
        httpx.Client(base_url=url, trust_env=False, timeout=10) as one,
        httpx.Client(base_url=url, trust_env=False, timeout=10) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        for client in (one, other):
            assert client.post("/sign-in", data={"token": TOKEN}).headers["location"] == "/"
        with (
            one.stream("GET", "/api/v1/live") as mine,
            other.stream("GET", "/api/v1/live") as theirs,
        ):
            lines, others = mine.iter_lines(), theirs.iter_lines()
            assert next(lines) == next(others) == "event: look"
            rest = pool.submit(list, islice(lines, MOST_LINES))
            cookies = dict(one.cookies)
            httpx.post(f"{url}/sign-out", cookies=cookies, trust_env=False)
            assert len(rest.result(60)) < MOST_LINES, "the stream goes on"
            next(line for line in others if line == "event: look")


def test_wrong_tokens_wait_longer_and_longer_and_right_ones_never(http_broker: HttpBroker) -> None:
    """By address, over the API and at the sign-in, which count as one; the log says so after 1, 2, 4, ..."""

    def refused() -> float:
        began_s = time.monotonic()
        with httpx.Client(base_url=http_broker.url, trust_env=False) as client:
            assert client.get("/api/v1/queues", headers=WRONG).status_code == 401
        return time.monotonic() - began_s

    waits = [refused() for _ in range(3)]
    assert [wait >= least for wait, least in zip(waits, (0.1, 0.2, 0.4), strict=True)] == [True] * 3
    began_s = time.monotonic()
    form = http_broker.client.post("/sign-in", data={"token": "no"})
    assert form.headers["location"].endswith("wrong=1")
    assert time.monotonic() - began_s >= 0.8
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(refused)  # for 1.6 s
        assert http_broker.client.get("/api/v1/queues", headers=RIGHT).status_code == 200
        assert not waiting.done()
        assert waiting.result() >= 1.6
    told = [line for line in http_broker.server.lines if "http_token_refused" in line]
    assert [line.rpartition("failures=")[2] for line in told] == ["1", "2", "4"]
    assert "bad news" not in http_broker.server.output
