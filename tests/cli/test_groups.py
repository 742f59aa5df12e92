"""`minibroker group` and `minibroker read`: retained logs for a person and for a script."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from typing_commands import CLEAN, output, refusal, typed, values

from minibrokerd.process import exits
from support.broker import BrokerServer


@pytest.fixture
def log(broker_server: BrokerServer) -> str:
    """A retained log with five messages, a to e."""
    output(broker_server, "queue", "set", "events", "kind=log", "retention_bytes=1GiB")
    for body in "abcde":
        output(broker_server, "publish", "events", body, "--key", "k")
    return "events"


def test_groups_from_the_command_line(broker_server: BrokerServer, log: str) -> None:
    """Set, consumed, listed, shown, moved and deleted."""
    made = output(broker_server, "group", "set", log, "audit")
    assert made == ["events@audit goes on at offset 0, with 5 messages behind"]
    (late,) = values(broker_server, "group", "set", log, "late", "--start", "next")
    assert late == {"queue": "events@late", "position": 5, "lag": 0}
    consume = ("consume", "events@audit", "--ack", "--count")
    assert output(broker_server, *consume, "5") == list("abcde")
    (seen,) = values(broker_server, "group", "show", log, "audit")
    assert (seen["position"], seen["lag"], seen["waiting"], seen["seeks"]) == (5, 0, 0, 0)
    for start in ("3", "last"):
        output(broker_server, "group", "seek", log, "audit", "--start", start)
        at = 3 if start == "3" else 4
        found = values(broker_server, *consume, str(5 - at))
        assert [each["offset"] for each in found] == list(range(at, 5))
    output(broker_server, "group", "seek", log, "audit", "--start", "1h ago")
    assert output(broker_server, *consume, "5") == list("abcde")
    listed = values(broker_server, "group", "list", log)
    assert [(each["group"], each["seeks"]) for each in listed] == [("audit", 3), ("late", 0)]
    assert output(broker_server, "group", "delete", log, "late", "--yes") == ["deleted events@late"]
    told = refusal(broker_server, exits.REFUSED, "group", "show", log, "late")
    assert "minibroker group list events" in told


def test_a_dead_letter_of_a_group_is_counted_and_redriven(
    broker_server: BrokerServer, log: str
) -> None:
    output(broker_server, "group", "set", log, "audit", "--start", "4")
    output(broker_server, "consume", "events@audit", "--exec", "exit 65", "--count", "1")
    (seen,) = values(broker_server, "group", "show", log, "audit")
    assert seen["dead"] == 1
    output(broker_server, "dlq", "redrive", "events@audit")
    assert output(broker_server, "consume", "events@audit", "--ack", "--count", "1") == ["e"]


def test_a_log_is_read_without_a_group(broker_server: BrokerServer, log: str) -> None:
    """What was just published is read, too, and then it ends."""
    assert output(broker_server, "read", log) == list("abcde")
    assert output(broker_server, "read", log, "--from", "3") == ["d", "e"]
    assert output(broker_server, "read", log, "--from", "last") == ["e"]
    assert output(broker_server, "read", log, "--from", "next") == []
    assert output(broker_server, "read", log, "--from", "1h", "--count", "2") == ["a", "b"]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert output(broker_server, "read", log, "--from", tomorrow) == []
    (first, second) = values(broker_server, "read", log, "--count", "2")
    assert (first["offset"], first["key"], first["body"]) == (0, "k", "a")
    assert second["offset"] == 1
    assert values(broker_server, "group", "list", log) == []


def test_a_log_is_exported_and_imported(broker_server: BrokerServer, log: str) -> None:
    """All that is kept, with keys and headers: as another log it has them again."""
    output(broker_server, "publish", log, '{"n": 1}', "--as", "json", "--header", "h=1")
    lines = output(broker_server, "export", log)
    assert [json.loads(line)["offset"] for line in lines] == list(range(6))
    assert len(output(broker_server, "export", log, "--count", "2")) == 2
    output(broker_server, "queue", "set", "copy", "kind=log")
    output(broker_server, "import", "copy", stdin="\n".join(lines))

    def kept(name: str) -> list[object]:
        found = values(broker_server, "read", name)
        return [(each["key"], each["headers"], each["body"]) for each in found]

    assert kept("copy") == kept(log)
    assert kept(log)[-1] == (None, {"h": "1"}, {"n": 1})


def test_a_reader_follows(broker_server: BrokerServer, log: str) -> None:
    """It waits for what comes: the sixth message is published when five were printed."""
    env = CLEAN | {"MINIBROKER_URL": broker_server.url}
    command = [sys.executable, "-m", "minibrokerd", "read", log, "--follow", "--count", "6"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert [reader.stdout.readline().strip() for _ in range(5)] == list("abcde")
        output(broker_server, "publish", log, "f")
        assert reader.stdout.read() == "f\n"
    assert reader.returncode == 0


def test_what_a_log_has_is_shown_below_its_settings(broker_server: BrokerServer, log: str) -> None:
    """In units; and of a group where it is."""
    output(broker_server, "read", log)  # by then all are in the files
    output(broker_server, "group", "set", log, "audit", "--start", "next")
    lines = output(broker_server, "queue", "show", log)
    assert ["retention_bytes", "1GiB", "chosen", "0"] in [line.split()[:4] for line in lines]
    assert any(line.startswith("it has 5 messages in ") for line in lines)
    assert "the next offset is 5" in lines
    lines = output(broker_server, "queue", "show", "events@audit")
    assert lines[-1] == "a group of the log events, at offset 5, with 0 messages behind"
    rows = json.loads(output(broker_server, "stats", "--json")[0])["queues"]
    assert rows[log]["offsets"]["messages"] == 5
    assert rows["events@audit"]["group_of"] == {"log": log, "position": 5, "lag": 0}


def test_tables_of_groups_fit_where_they_stand(broker_server: BrokerServer, log: str) -> None:
    """At 60 columns and at 100."""
    name = "a-group-with-a-name-that-is-longer-than-most-tables-are-wide"
    output(broker_server, "group", "set", log, name)
    for columns in (60, 100):
        for words in (("list", log), ("show", log, name)):
            env = {"MINIBROKER_URL": broker_server.url, "COLUMNS": str(columns)}
            done = typed("group", *words, env=env)
            assert done.returncode == 0
            assert max(map(len, done.stdout.splitlines())) <= columns


def test_what_makes_no_sense_is_said(broker_server: BrokerServer, log: str) -> None:
    for words, code, text in (
        (("group", "set", log, "a@b"), exits.REFUSED, "no name of a group"),
        (("group", "set", "none", "a"), exits.REFUSED, "none"),
        (("group", "set", log, "a", "--start", "soon"), exits.USAGE, "no place in a log"),
        (("group", "seek", log, "a"), exits.USAGE, "--start"),
        (("group", "seek", log, "a", "--start", "first"), exits.REFUSED, "no group"),
        (("group", "delete", log, "a", "--yes"), exits.REFUSED, "no group"),
        (("read", "none"), exits.REFUSED, "none"),
        (("read", log, "--from", "-1"), exits.USAGE, "no place in a log"),
        (("consume", log, "--count", "1"), exits.REFUSED, "make a group"),
        (("publish", log, "x", "--delay", "1s"), exits.REFUSED, "one order"),
        (("queue", "set", log, "retention_bytes=lots"), exits.USAGE, "no size"),
        (("queue", "set", "work", "retention_ms=1d"), exits.REFUSED, "no retained log"),
    ):
        assert text in refusal(broker_server, code, *words), words
