"""A queue that a command makes because it names it: each such command says so, or refuses where it is asked to."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import click
import pytest
from typing_commands import CLEAN, output, typed_at, values

import minibroker.sync
from minibrokerd.cli.main import main
from minibrokerd.process import exits
from support.broker import COMMAND, BrokerServer

EXCHANGE = json.dumps(
    {
        "exchange": "all", "type": "fanout", "unroutable": "refuse", "alternate": None,
        "bindings": [{"queue": "QUEUE", "exchange": None, "pattern": ""}],
    }
)  # fmt: skip
# What is typed, with what on standard input, by the name of the command.
MAKERS: dict[str, tuple[str, str]] = {
    "publish": ("QUEUE x", ""),
    "consume": ("QUEUE --count 1 --exec true", ""),
    "import": ("QUEUE", '{"body": 1}'),
    "queue set": ("QUEUE max_attempts=3", ""),
    "queue move": ("moved --to QUEUE", ""),
    "message move": ("picked 2-0 --to QUEUE", ""),
    "dlq requeue": ("died 3-0 --to QUEUE", ""),
    "schedule add": ("nightly @daily QUEUE", ""),
    "exchange bind": ("all QUEUE", ""),
    "exchange import": ("", EXCHANGE),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerServer]:
    """A broker with 1-0 of `moved` and 2-0 of `picked`, which wait, with 3-0 of `died`, and with an exchange."""
    started = BrokerServer(tmp_path_factory.mktemp("data"))
    with minibroker.sync.connect(started.url) as broker:
        for name in ("moved", "picked", "died"):
            broker.queue(name).publish("x")
        (message,) = broker.queue("died").receive()
        message.reject("no", confirmed=True)
        broker.exchange("all").declare("fanout")
    yield started
    started.close()


def names_at(server: BrokerServer) -> set[str]:
    """Return the names of its queues."""
    return {row["queue"] for row in values(server, "queues")}


@pytest.mark.parametrize("command", MAKERS)
def test_who_makes_a_queue_says_so_or_makes_none(server: BrokerServer, command: str) -> None:
    """A slip of the pen is seen at once; a script that asks for it is refused before anything is done."""
    more, stdin = MAKERS[command]
    name = command.replace(" ", "-")
    words = [*command.split(), *more.replace("QUEUE", name).split()]
    stdin = stdin.replace("QUEUE", name)
    refused = typed_at(server, *words, "--no-create", stdin=stdin)
    assert (refused.returncode, refused.stdout) == (exits.REFUSED, "")
    assert f"there is no queue {name!r}, and --no-create says to make none" in refused.stderr
    assert name not in names_at(server)
    if command == "consume":  # the next message ends it
        told = _consumed(server, words)
    else:
        done = typed_at(server, *words, stdin=stdin)
        assert done.returncode == 0
        told = done.stderr
    assert told == f"made the queue {name}\n"
    assert name in names_at(server)


def _consumed(server: BrokerServer, words: list[str]) -> str:
    """Publish when it has said that it made the queue; return all that it said until it ended."""
    with subprocess.Popen(
        [*COMMAND, *words, "--url", server.url], stderr=subprocess.PIPE, text=True, env=CLEAN
    ) as consumer:
        assert consumer.stderr is not None
        first = consumer.stderr.readline()
        output(server, "publish", words[1], "x")
        more = consumer.stderr.read()
    assert consumer.returncode == 0
    return first + more


def test_a_queue_that_is_there_is_not_told_of(server: BrokerServer) -> None:
    """Nor one of a word that can be none, of which the refusal speaks alone."""
    output(server, "publish", "emails", "x")
    for words in ("publish emails y", "queue set emails max_attempts=3 --no-create"):
        assert typed_at(server, *words.split()).stderr == ""
    done = typed_at(server, "publish", "no name", "x")
    assert "bad_name" in done.stderr
    assert "made" not in done.stderr


def test_a_refusal_names_what_was_meant(server: BrokerServer) -> None:
    """As JSON it has the code of a queue that is not there."""
    output(server, "publish", "emails", "x")
    words = ("publish", "emials", "x", "--no-create", "--json")
    done = typed_at(server, *words)
    (said,) = map(json.loads, done.stderr.splitlines())
    assert said["error"]["code"] == "unknown_queue"
    assert said["error"]["text"].endswith("did you mean 'emails'?")


def test_all_that_make_queues_have_the_flag() -> None:
    """Those above, and no others."""
    assert set(MAKERS) == set(_with_flag(main, ()))


def _with_flag(command: click.Command, words: tuple[str, ...]) -> Iterator[str]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _with_flag(inner, (*words, name))
    elif any("--no-create" in each.opts for each in command.params):
        yield " ".join(words)
