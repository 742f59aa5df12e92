"""Sentences, errors and help on narrow terminals: no word is cut, and what programs read stays one line."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from test_top import address_of
from typing_commands import typed

import minibroker.sync
from minibrokerd.cli.layout import width_of
from minibrokerd.cli.main import main
from support.broker import BrokerServer

QUEUE = "bookings-of-the-week"
# Each says more than fits in a line of 60 columns: to standard output, or to standard error.
SENTENCES = (
    "explain 1-0",
    "explain 1-1",
    "who 1-1",
    "who 9-9",
    "result 1-0",
    "retime 1-0 2h",
    f"message show {QUEUE} 1-0",
    f"message show {QUEUE} 9-9",
    f"export {QUEUE} --out /dev/null",
    "peek nope",
    f"queue set {QUEUE} colour=1",
    f"queue set {QUEUE} lease_ms=soon",
    "exchange set all",
    "ping --url minibroker://127.0.0.1:1",
)
ONE_LINE = (f"check --queue {QUEUE}", "check --oldest-ready 1ms,", f"publish {QUEUE} x")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that names a broker, in which 1-0 is delayed, with a long body, and 1-1 is begun."""
    started = BrokerServer(
        tmp_path_factory.mktemp("data"), "--http", "127.0.0.1:0", env={"MINIBROKER_NO_HTTP": "0"}
    )
    with minibroker.sync.connect(started.url, name="a-worker-of-the-week") as broker:
        queue = broker.queue(QUEUE)
        queue.publish("Kraków → 東京 " * 10, delay=3_600, headers={"to": "a" * 70})
        queue.publish("now")
        (message,) = queue.receive()
        yield {"MINIBROKER_URL": started.url, "MINIBROKER_HTTP": address_of(started)}
        message.ack(confirmed=True)
    started.close()


@pytest.mark.parametrize("words", SENTENCES)
def test_a_sentence_goes_on_in_the_next_line(env: dict[str, str], words: str) -> None:
    """COLUMNS says how wide; without it a pipe gets it in one. Nothing else is lost or said."""
    whole = typed(*words.split(), env=env)
    narrow = typed(*words.split(), env={**env, "COLUMNS": "60"})
    assert narrow.returncode == whole.returncode
    long = [line for line in (whole.stdout + whole.stderr).splitlines() if width_of(line) > 60]
    assert long, "it is no sentence to try"
    lines = (narrow.stdout + narrow.stderr).splitlines()
    assert not [line for line in lines if width_of(line) > 60]
    if not words.startswith(
        ("who 1-1", "ping", "retime", "message show")
    ):  # of these the clock is a part
        assert _letters(narrow.stdout + narrow.stderr) == _letters(whole.stdout + whole.stderr)


def _letters(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("words", ONE_LINE)
def test_what_a_program_reads_stays_one_line(env: dict[str, str], words: str) -> None:
    """However narrow the terminal is in which somebody tries the command."""
    done = typed(*words.split(), env={**env, "COLUMNS": "10"})
    assert done.stdout.count("\n") == 1, done.stdout


def test_help_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every command and group of commands."""
    monkeypatch.setenv("COLUMNS", "80")
    wide = [line for text in _helps(main, None) for line in text.splitlines() if len(line) > 80]
    assert not wide


def _helps(command: click.Command, parent: click.Context | None) -> Iterator[str]:
    settings = {} if parent else command.context_settings
    context = click.Context(command, parent, command.name, **settings)
    yield command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _helps(found, context)
