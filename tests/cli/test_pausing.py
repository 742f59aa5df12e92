"""`minibroker pause`, `resume` and `pauses`; over a kill of the server, too."""

from __future__ import annotations

from typing_commands import output, refusal, values

from minibrokerd.process import exits
from support.broker import BrokerServer


def test_a_queue_and_workers_are_paused(broker_server: BrokerServer) -> None:
    """What is paused is listed with what is in hand, and explained; what is not is told."""
    output(broker_server, "publish", "mails", "x")
    assert output(broker_server, "pauses") == ["nothing is paused"]
    (said,) = output(broker_server, "pause", "mails", "--for", "1h")
    assert said.startswith("paused queue mails until 20")
    assert said.endswith("; in hand: 0 begun, 0 held")
    (said,) = output(broker_server, "pause", "mails", "--until", "2090-01-31T09:00+00:00")
    assert said.startswith("paused queue mails until 2090-01-31 ")
    (said,) = output(broker_server, "pause", "mails", "--until", "2h")
    assert said.startswith("paused queue mails until 20")
    output(broker_server, "pause", "--worker", "w1", "--below", "1.10")
    output(broker_server, "pause", "--below", "2")
    broker_server.kill()
    broker_server.restart()
    (queue, named, below) = values(broker_server, "pauses")
    assert (queue["queue"], named["worker"], named["below"]) == ("mails", "w1", "1.10")
    assert (below["worker"], below["below"], below["until"]) == (None, "2", None)
    assert "mails is paused since" in output(broker_server, "explain", "1-0")[0]
    assert output(broker_server, "resume", "mails") == ["resumed mails"]
    assert output(broker_server, "resume", "--worker", "w1") == ["resumed w1"]
    assert output(broker_server, "resume", "--workers") == ["resumed workers"]
    assert "not paused" in refusal(broker_server, exits.REFUSED, "resume", "mails")
    refusal(broker_server, exits.USAGE, "pause")
    refusal(broker_server, exits.USAGE, "pause", "mails", "--until", "2h", "--for", "2h")
    refusal(broker_server, exits.USAGE, "pause", "mails", "--until", "now")
    refusal(broker_server, exits.REFUSED, "pause", "mails", "--until", "2020-01-31")
    refusal(broker_server, exits.USAGE, "pause", "mails", "--worker", "w1")
    refusal(broker_server, exits.REFUSED, "pause", "nowhere")
