"""What a message came to: over HTTP, and by `minibroker result`."""

from __future__ import annotations

import json
from typing import Any

from commands_here import here
from http_broker import HttpBroker

import minibroker.sync
from minibrokerd.process import exits


def test_over_http_and_by_the_command(http_broker: HttpBroker) -> None:
    """Nothing yet, how far it is, a result, a dead message, one that ended without any; codes of the command."""
    env = {"MINIBROKER_URL": http_broker.server.url}

    def asked(id: object) -> Any:
        return http_broker.client.get(f"/api/v1/queues/sums/messages/{id}/result").json()

    with minibroker.sync.connect(http_broker.server.url) as connection:
        sums = connection.queue("sums", result_ms=60_000, max_attempts=1)
        ids = [sums.publish(body).id for body in (1, 2)]
        assert asked(ids[0])["state"] == "none"
        nothing = here(env, "result", str(ids[0]))
        assert (nothing.returncode, "is READY" in nothing.stderr) == (exits.NOT_YET, True)
        done, dead = sums.receive(2)
        done.progress(0.5, "half")
        while not (found := asked(ids[0]))["note"]:
            assert found["state"] == "none"
        assert (found["progress"], found["note"]) == (0.5, "half")
        done.complete({"sum": [1, b"x"]}, confirmed=True)
        dead.nack(ValueError("no"), confirmed=True)
    found = asked(ids[0])
    assert (found["state"], found["result"]) == ("done", {"sum": [1, "x"]})
    found = asked(ids[1])
    assert (found["state"], found["error_class"], found["error_text"]) == (
        "dead",
        "ValueError",
        "no",
    )
    assert here(env, "result", str(ids[0]), "sums").stdout == '{"sum": [1, "x"]}\n'
    assert json.loads(here(env, "result", str(ids[0]), "--json").stdout)["result"] == {
        "sum": [1, "x"]
    }
    failed = here(env, "result", str(ids[1]))
    assert (failed.returncode, "is dead: ValueError: no" in failed.stderr) == (exits.REFUSED, True)
    with minibroker.sync.connect(http_broker.server.url) as connection:
        sums = connection.queue("sums", overwrite=True, result_ms=0)
        gone = sums.publish(3).id
        sums.cancel([gone])
    found = asked(gone)
    assert (found["state"], found["reason"]) == ("ended", "cancelled")
    assert "cancelled it at" in found["says"]
    assert asked("1-77")["reason"] == "unknown"
    nowhere = http_broker.client.get(f"/api/v1/queues/nowhere/messages/{ids[0]}/result")
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "unknown_queue")
