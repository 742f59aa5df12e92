"""`minibroker key`: a weight, and a pause of a single key."""

from __future__ import annotations

from typing_commands import output, values

from support.broker import BrokerServer


def test_a_key_from_the_command_line(broker_server: BrokerServer) -> None:
    output(broker_server, "publish", "mail", "x", "--key", "alice")
    assert output(broker_server, "key", "set", "mail", "alice", "--weight", "3") == [
        "alice: weight 3, on"
    ]
    assert output(broker_server, "key", "pause", "mail", "alice") == ["alice: weight 3, paused"]
    (told,) = values(broker_server, "key", "pause", "mail", "alice", "--for", "1h")
    assert told["until"]
    listed = "\n".join(output(broker_server, "key", "list", "mail"))
    assert "paused until" in listed
    assert output(broker_server, "key", "resume", "mail", "alice") == ["alice: weight 3, on"]
