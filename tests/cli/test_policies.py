"""`minibroker policy`, and what `queue show` says of where settings come from."""

from __future__ import annotations

import sys
from pathlib import Path

from typing_commands import output, refusal, values

from minibrokerd.process import exits
from support.broker import BrokerServer, StartBroker


def test_a_policy_from_the_command_line(broker_server: BrokerServer) -> None:
    """Set, listed, shown, in force, and deleted."""
    says = output(
        broker_server, "policy", "set", "brief", "tmp.*", "message_ttl_ms=1h", "lease_ms=5s"
    )
    assert says == ["queues called tmp.* have message_ttl_ms=1h lease_ms=5s"]
    says = output(broker_server, "policy", "set", "small", "*", "max_messages=100", "--operator")
    assert says == ["queues called * have at most max_messages=100"]
    listed = values(broker_server, "policy", "list")
    assert [(each["policy"], each["kind"], each["settings"]) for each in listed] == [
        ("brief", "policy", {"message_ttl_ms": 3_600_000, "lease_ms": 5_000}),
        ("small", "limit", {"max_messages": 100}),
    ]
    (shown,) = values(broker_server, "policy", "show", "brief")
    assert (shown["pattern"], shown["priority"]) == ("tmp.*", 0)
    output(broker_server, "queue", "set", "tmp.a", "max_messages=1000", "lease_ms=7s")
    (found,) = values(broker_server, "queue", "show", "tmp.a")
    assert (found["max_messages"], found["lease_ms"]) == (100, 7_000)
    (origins,) = values(broker_server, "queue", "show", "tmp.a", "--origins")
    assert origins["max_messages"] == {"value": 100, "origin": "limit small"}
    assert origins["lease_ms"] == {"value": 7_000, "origin": "chosen"}
    assert origins["message_ttl_ms"] == {"value": 3_600_000, "origin": "policy brief"}
    assert origins["max_attempts"] == {"value": 5, "origin": "default"}
    table = output(broker_server, "queue", "show", "tmp.a")
    assert [line.split()[:4] for line in table if line.startswith("max_messages")] == [
        ["max_messages", "100", "limit", "small"]
    ]
    output(broker_server, "queue", "set", "tmp.a", "--unset", "lease_ms")
    (found,) = values(broker_server, "queue", "show", "tmp.a")
    assert found["lease_ms"] == 5_000
    assert output(broker_server, "policy", "delete", "brief") == ["deleted brief"]
    told = refusal(broker_server, exits.REFUSED, "policy", "delete", "small")
    assert "no policy small" in told
    assert output(broker_server, "policy", "delete", "small", "--operator") == ["deleted small"]
    refusal(broker_server, exits.REFUSED, "policy", "show", "small", "--operator")
    (found,) = values(broker_server, "queue", "show", "tmp.a")
    assert (found["max_messages"], found["lease_ms"]) == (1_000, 30_000)


def test_policies_are_carried_to_another_broker(
    broker_server: BrokerServer, start_broker: StartBroker
) -> None:
    """Twice is as once; a line that is none makes nothing."""
    output(broker_server, "policy", "set", "p", "tmp.*", "lease_ms=5s", "--priority", "3")
    output(broker_server, "policy", "set", "p", "*", "max_messages=100", "--operator")
    lines = output(broker_server, "policy", "export")
    other = start_broker()
    output(other, "policy", "set", "p", "q", "lease_ms=1s")
    output(other, "policy", "set", "stays", "q", "lease_ms=1s")
    for wrong in ("{}", "no", lines[0].replace('"policy", "priority"', '"other", "priority"')):
        spoilt = "\n".join([lines[0], wrong])
        assert "line 2" in refusal(other, exits.USAGE, "policy", "import", stdin=spoilt)
    for _ in range(2):
        told = output(other, "policy", "import", stdin="\n".join(lines))
        assert told == ["policies and limits that are there now: 2"]
        found = output(other, "policy", "export")
        assert [found[0], found[2]] == lines
        assert "stays" in found[1]


def test_what_makes_no_sense_is_said(broker_server: BrokerServer) -> None:
    told = refusal(broker_server, exits.REFUSED, "policy", "set", "p", "a?", "max_messages=1")
    assert "no pattern" in told
    told = refusal(broker_server, exits.USAGE, "policy", "set", "p", "*", "max_message=1")
    assert "did you mean max_messages" in told
    refusal(broker_server, exits.USAGE, "policy", "set", "p", "*")


STRICTER = """
import runpy
from minibrokerd.core.model import policies
policies.PATTERN = policies.re.compile("[a-z]+")
runpy.run_module("minibrokerd", run_name="__main__")
"""


def test_a_policy_of_an_older_version_is_shown_as_set_aside(tmp_path: Path) -> None:
    """The server comes up, by the port and by the log it says which one and why, and its queue is free of it."""
    server = BrokerServer(tmp_path)
    try:
        output(server, "policy", "set", "brief", "tmp.*", "max_messages=9")
        output(server, "publish", "tmp.a", "one")
        server.stop()
        server.command = sys.executable, "-c", STRICTER
        server.restart()
        server.prints("policy_set_aside")
        (line,) = [each for each in server.lines if "policy_set_aside" in each]
        assert "name=brief" in line
        (shown,) = values(server, "policy", "show", "brief")
        assert "no pattern" in shown["set_aside"]
        table = "\n".join(output(server, "policy", "show", "brief"))
        assert "it holds for no queue: 'tmp.*' is no pattern" in table
        assert "policy, set aside" in "\n".join(output(server, "policy", "list"))
        (found,) = values(server, "queue", "show", "tmp.a")
        assert found["max_messages"] == 0
    finally:
        server.close()
