"""`minibroker exchange`, and `publish --exchange`: what a person and a program get to see."""

from __future__ import annotations

import json

from typing_commands import output, refusal, typed, values

from minibrokerd.process import exits
from support.broker import BrokerServer, StartBroker


def test_an_exchange_from_the_command_line(broker_server: BrokerServer) -> None:
    """Set, bound, shown, published to, unbound and deleted."""
    made = output(broker_server, "exchange", "set", "logs", "--type", "topic")
    assert made == ["logs is of type topic, else refuses"]
    bound = output(broker_server, "exchange", "bind", "logs", "errors", "*.error")
    assert bound == ["logs leads to errors"]
    again = output(broker_server, "exchange", "bind", "logs", "errors", "*.error")
    assert again == ["logs led to errors already"]
    output(broker_server, "exchange", "set", "every", "--type", "fanout", "--unroutable", "drop")
    output(broker_server, "exchange", "bind", "logs", "every", "#", "--exchange")
    publish = ("publish", "--exchange", "logs", "--routing-key")
    assert output(broker_server, *publish, "kern.error", "disk full") == ["errors=1-0 sync"]
    output(broker_server, "exchange", "bind", "every", "archive")
    (said,) = values(broker_server, *publish, "kern.error", '{"n": 1}', "--as", "json")
    assert said == {"ids": {"errors": "1-1", "archive": "2-0"}, "durability": "sync"}
    (shown,) = values(broker_server, "exchange", "show", "logs")
    assert (shown["exchange"], shown["type"], shown["routed"]) == ("logs", "topic", 2)
    assert sorted(shown["bindings"], key=str) == [
        {"queue": "errors", "exchange": None, "pattern": "*.error"},
        {"queue": None, "exchange": "every", "pattern": "#"},
    ]
    listed = values(broker_server, "exchange", "list")
    assert [(each["exchange"], each["unroutable"]) for each in listed] == [
        ("every", "drop"),
        ("logs", "refuse"),
    ]
    unbound = output(broker_server, "exchange", "unbind", "every", "archive")
    assert unbound == ["every leads to archive no more"]
    assert output(broker_server, "publish", "--exchange", "every", "x") == ["dropped"]
    assert output(broker_server, "exchange", "delete", "every") == ["deleted every"]
    told = refusal(broker_server, exits.REFUSED, *publish, "mail.info", "x")
    assert "no binding" in told


def test_tables_of_exchanges_fit_where_they_stand(broker_server: BrokerServer) -> None:
    """At 60 columns and at 100; a pattern that is longer goes on in the next line."""
    name, pattern = (
        "logs-of-all-the-world",
        "all " + " ".join(f"header-{n}=value" for n in range(8)),
    )
    output(broker_server, "exchange", "set", "x" * 40, "--type", "fanout")
    output(broker_server, "exchange", "set", name, "--type", "headers", "--alternate", "x" * 40)
    output(broker_server, "exchange", "bind", name, "errors-of-everybody", pattern)
    for columns in (60, 100):
        for words in (("list",), ("show", name)):
            env = {"MINIBROKER_URL": broker_server.url, "COLUMNS": str(columns)}
            lines = typed("exchange", *words, env=env).stdout.splitlines()
            assert max(map(len, lines)) <= columns
            assert name[:16] in "".join(lines) or words[0] == "show"
    assert "header-7=value" in "".join(lines)


def test_what_is_not_there_is_refused(broker_server: BrokerServer) -> None:
    """With the exit code of a refusal, and a way on."""
    for words in (
        ("delete", "none"),
        ("show", "none"),
        ("bind", "none", "q"),
        ("unbind", "none", "q"),
    ):
        told = refusal(broker_server, exits.REFUSED, "exchange", *words)
        assert "minibroker exchange list" in told
    output(broker_server, "exchange", "set", "e", "--type", "direct")
    told = refusal(broker_server, exits.REFUSED, "exchange", "unbind", "e", "q", "k")
    assert "no binding to q with the pattern k" in told
    told = refusal(broker_server, exits.REFUSED, "exchange", "set", "e", "--type", "topic")
    assert "delete it first" in told
    assert "exchanges" not in output(broker_server, "exchange", "list", "x*")[0].split()


def test_what_is_not_said_of_an_exchange_stays(broker_server: BrokerServer) -> None:
    """`set` names what it changes."""
    output(broker_server, "exchange", "set", "rest", "--type", "fanout")
    set_logs = ("exchange", "set", "logs", "--type", "topic")
    output(broker_server, *set_logs, "--unroutable", "drop", "--alternate", "rest")
    assert output(broker_server, *set_logs) == ["logs is of type topic, else asks rest, else drops"]
    told = output(broker_server, *set_logs, "--alternate", "", "--unroutable", "refuse")
    assert told == ["logs is of type topic, else refuses"]


def test_a_binding_that_was_meant_otherwise_is_refused(broker_server: BrokerServer) -> None:
    """One without its pattern, which would take nearly nothing; one to an exchange that is named as a queue."""
    output(broker_server, "exchange", "set", "logs", "--type", "topic")
    output(broker_server, "exchange", "set", "jobs", "--type", "direct")
    output(broker_server, "exchange", "set", "all", "--type", "fanout")
    for name, example in (("logs", "'#'"), ("jobs", "routing key")):
        told = refusal(broker_server, exits.USAGE, "exchange", "bind", name, "q")
        assert "needs a PATTERN" in told
        assert example in told
    assert output(broker_server, "exchange", "bind", "jobs", "q", "") == ["jobs leads to q"]
    told = refusal(broker_server, exits.USAGE, "exchange", "bind", "all", "logs")
    assert "--exchange" in told
    output(broker_server, "queue", "set", "logs")
    assert output(broker_server, "exchange", "bind", "all", "logs") == ["all leads to logs"]
    assert output(broker_server, "exchange", "bind", "all", "logs", "--exchange") == [
        "all leads to logs"
    ]


def test_exchanges_move_to_another_broker(
    broker_server: BrokerServer, start_broker: StartBroker
) -> None:
    """With types, alternates and bindings; twice is as once, and a line that is none makes nothing."""
    export = ("exchange", "export")
    output(broker_server, "exchange", "set", "a", "--type", "topic", "--unroutable", "drop")
    output(broker_server, "exchange", "set", "b", "--type", "fanout", "--alternate", "a")
    output(broker_server, "exchange", "set", "a", "--type", "topic", "--alternate", "b")
    output(broker_server, "exchange", "bind", "a", "errors", "*.error")
    output(broker_server, "exchange", "bind", "a", "b", "#", "--exchange")
    lines = output(broker_server, *export)
    assert [json.loads(line)["exchange"] for line in lines] == ["a", "b"]
    other = start_broker()
    for new in (2, 0):
        told = output(other, "exchange", "import", stdin="\n".join(lines))
        assert told == [f"there now: 2 exchanges, with {new} new bindings"]
    assert output(other, *export) == lines
    assert [json.loads(line)["exchange"] for line in output(other, *export, "b*")] == ["b"]
    for wrong in (
        "{}",
        "no",
        '{"exchange": "c", "type": "topic", "unroutable": "drop", "bindings": [{}]}',
    ):
        spoilt = [lines[0].replace('"a"', '"new"'), wrong]
        words = ("exchange", "import")
        assert "line 2" in refusal(other, exits.USAGE, *words, stdin="\n".join(spoilt))
    assert output(other, *export) == lines


def test_words_that_do_not_go_together(broker_server: BrokerServer) -> None:
    """`publish` says which."""
    for words, text in (
        (("publish",), "QUEUE"),
        (("publish", "q", "x", "--routing-key", "k"), "needs --exchange"),
        (("publish", "q", "x", "--exchange", "e"), "not both"),
        (("publish", "x", "--exchange", "e", "--unique-key", "u"), "--unique-key"),
        (("publish", "x", "--exchange", "e", "--unique", "replace"), "needs --unique-key"),
        (("publish", "q", "x", "--unique", "replace"), "needs --unique-key"),
        (("schedule", "add", "s", "@daily", "q", "--unique", "keep-latest"), "needs --unique-key"),
        (("exchange", "set", "e"), "--type"),
    ):
        assert text in refusal(broker_server, exits.USAGE, *words)
