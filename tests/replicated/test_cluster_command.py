"""`minibroker cluster` on real brokers: who leads, who stands by, and handing over."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

import minibroker.sync
from minibrokerd.cli.cluster import Cluster, judge
from minibrokerd.monitoring.checks import Level
from minibrokerd.process import exits
from minibrokerd.replicated.members import Consent, Member, consent_of, members_of
from minibrokerd.replicated.stream import Info
from support.broker import BrokerServer, StartBroker
from support.processes import look_until
from support.warm import COMMAND

NewStream = Callable[[], str]
LEADER = Member("a, process 1", "a:7272", "leads", 7, 1_000, "1.0")
STANDBY = Member("b, process 2", "b:7272", "standby", 0, 1_000, "1.0")
WELL = Info(1, 2, 100, "x", ("x", "y", "z"), ())


def asked(log: str, *words: str, columns: int = 100) -> subprocess.CompletedProcess[str]:
    """Run `minibroker cluster` for a stream."""
    command = [*COMMAND, "cluster", words[0], "--log", log, *words[1:]]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False,
        env={"COLUMNS": str(columns), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


def standing_by(start_broker: StartBroker, log: str, other: str) -> BrokerServer:
    """Return a broker that stands by on `log`; it has its port of a life on another stream."""
    server = start_broker("--log", other)
    server.kill()
    server.flags = ("--log", log, "--standby")
    server.launch()
    server.prints("standing_by")
    look_until(lambda: "standby" in asked(log, "status").stdout, server.process, "an answer of it")
    return server


def test_status_check_and_step_down(start_broker: StartBroker, new_stream: NewStream) -> None:
    log = new_stream()
    leader = start_broker("--log", log, "--standby")
    alone = asked(log, "check")
    assert (alone.returncode, alone.stdout) == (
        Level.WARNING, "MINIBROKER CLUSTER WARNING - nobody stands by\n",
    )  # fmt: skip
    refused = asked(log, "step-down")
    assert refused.returncode == exits.REFUSED
    assert "nobody stands by, so nobody would lead" in refused.stderr
    assert leader.running

    other = standing_by(start_broker, log, new_stream())
    well = asked(log, "check", "--json")
    assert well.returncode == 0
    text = f"127.0.0.1:{leader.port} leads, 1 on standby"
    assert json.loads(well.stdout) == {"level": "ok", "text": text}
    for columns in (60, 100):
        lines = asked(log, "status", columns=columns).stdout.splitlines()
        assert lines[0].startswith(f"127.0.0.1:{leader.port} leads, epoch 1, for ")
        assert max(map(len, lines[3:])) <= columns, "\n".join(lines)
        assert f"127.0.0.1:{other.port}" in "\n".join(lines)

    with minibroker.sync.connect(f"minibroker://127.0.0.1:{other.port}") as broker:
        broker.queue("orders").publish("a")
        handed = asked(log, "step-down", "--json")
        assert handed.returncode == 0, handed.stderr
        said = json.loads(handed.stdout)
        assert said["leader"] == f"127.0.0.1:{other.port}"
        assert said["epoch"] > 1
        assert [peek.body for peek in broker.queue("orders").peek()] == ["a"]
    assert leader.process.wait(timeout=60) == exits.DEPOSED, "a supervisor would not start it"
    leader.prints("steps_down")
    found = json.loads(asked(log, "status", "--json").stdout)
    assert found["leader"] == f"127.0.0.1:{other.port}"
    assert [broker["state"] for broker in found["brokers"]] == ["leads"]
    assert found["stream"]["servers"] == [found["stream"]["leader"]]
    other.kill()
    dead = asked(log, "status")
    assert dead.stdout.startswith(f"nobody says that it leads; epoch {said['epoch']} is of ")
    assert asked(log, "check").returncode == Level.CRITICAL


def test_who_was_started_without_standby_keeps_the_log(
    start_broker: StartBroker, new_stream: NewStream
) -> None:
    log = new_stream()
    leader = start_broker("--log", log)
    standing_by(start_broker, log, new_stream())
    refused = asked(log, "step-down")
    assert refused.returncode == exits.REFUSED
    assert "without --standby" in refused.stderr
    assert leader.running


def test_no_server_of_nats() -> None:
    log = "nats://127.0.0.1:9/orders"
    assert asked(log, "status").returncode == exits.UNREACHABLE
    critical = asked(log, "check")
    assert critical.returncode == Level.CRITICAL
    assert "cannot be reached" in critical.stdout
    assert asked("nats://", "check").returncode == Level.UNKNOWN


@pytest.mark.parametrize(
    ("found", "level", "says"),
    [
        (Cluster([LEADER, STANDBY], None, WELL), Level.OK, "a:7272 leads, 1 on standby"),
        (Cluster([LEADER], None, WELL), Level.WARNING, "nobody stands by"),
        (
            Cluster([LEADER, STANDBY], None, WELL._replace(behind=("z",))),
            Level.WARNING,
            "behind or away: z",
        ),
        (Cluster([STANDBY], None, WELL), Level.CRITICAL, "nobody says that it leads"),
        (
            Cluster([LEADER], None, WELL._replace(leader="")),
            Level.CRITICAL,
            "the stream has no leader; nobody stands by",
        ),
    ],
)
def test_what_is_how_bad(found: Cluster, level: Level, says: str) -> None:
    assert judge(found) == (level, says)


def test_answers_that_are_none_are_passed_over() -> None:
    good = [STANDBY.encode(), LEADER.encode()]
    bad = [b"", b"\xff", b"1", b"{}", b'{"name": 1}', LEADER.encode().replace(b"7,", b'"7",')]
    newer = LEADER.encode().replace(b"{", b'{"more": 1, ', 1)
    assert members_of([*bad, *good]) == [LEADER, STANDBY]
    assert members_of([newer]) == [LEADER]
    older = LEADER.encode().replace(b', "lag_ms": -1', b"")
    assert b"lag_ms" not in older
    assert members_of([older]) == [LEADER]
    assert consent_of(Consent("a", "no").encode()) == Consent("a", "no")
    assert consent_of(b"{}") is None
