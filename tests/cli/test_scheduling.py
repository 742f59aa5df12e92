"""`minibroker schedule`: what is due next, in the zone of the schedule; over a kill of the server, too."""

from __future__ import annotations

from typing_commands import output, refusal, values

from minibrokerd.process import exits
from support.broker import BrokerServer


def test_a_schedule_from_the_command_line(broker_server: BrokerServer) -> None:
    """Added, listed, shown, run, paused and deleted."""
    words = ("schedule", "add", "nightly", "0 3 29 2 *", "reports", '{"all": true}')
    (said,) = output(broker_server, *words, "--as", "json", "--zone", "Europe/Berlin", "--key", "k")
    assert "nightly is due next at 20" in said
    assert "-02-29T03:00:00+01:00" in said
    assert "nightly" in "\n".join(output(broker_server, "schedule", "list", "night*"))
    assert values(broker_server, "schedule", "list", "x*") == []
    (told,) = values(broker_server, "schedule", "show", "nightly")
    assert (told["queue"], told["body"], told["key"]) == ("reports", {"all": True}, "k")
    output(broker_server, "schedule", "run", "nightly")
    (job,) = values(broker_server, "peek", "reports")
    assert (job["body"], job["key"]) == ({"all": True}, "k")
    assert output(broker_server, "schedule", "pause", "nightly") == ["nightly is paused"]
    broker_server.kill()
    broker_server.restart()
    assert values(broker_server, "schedule", "list")[0]["paused"]
    assert "due next" in output(broker_server, "schedule", "resume", "nightly")[0]
    assert output(broker_server, "schedule", "delete", "nightly") == ["deleted nightly"]
    refusal(broker_server, exits.REFUSED, "schedule", "delete", "nightly")
    refusal(broker_server, exits.REFUSED, "schedule", "show", "nightly")
    text = refusal(broker_server, exits.REFUSED, "schedule", "add", "n", "61 * * * *", "reports")
    assert "five fields" in text


def test_a_schedule_with_a_unique_key(broker_server: BrokerServer) -> None:
    """Its second job is not stored while the first one waits."""
    output(broker_server, "schedule", "add", "s", "@yearly", "reports", "--unique-key", "u")
    assert output(broker_server, "schedule", "run", "s") == ["1-0 sync"]
    assert output(broker_server, "schedule", "run", "s") == ["1-0 sync duplicate"]
    (told,) = values(broker_server, "schedule", "show", "s")
    assert told["unique_key"] == "u"
