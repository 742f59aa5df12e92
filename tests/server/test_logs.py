"""The log that an operator reads: stable names, one line an event, and nothing that a client can forge."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hand import Hand, frame, part

from minibroker.worker.reporting import WORKER_EVENTS
from minibrokerd.core.model.effects import Effects
from minibrokerd.log.seam import Room
from minibrokerd.process import logs
from support.broker import BrokerServer
from support.processes import DEADLINE_S
from support.source import CLIENT, CORE, SERVER, name_of, python_files, tree

SHELL = [path for path in python_files(SERVER) if "events" in path.read_text("utf-8")]
WORKER = CLIENT / "worker"
WORKERS = [path for path in python_files(SERVER) if path.parent.name == "workers"]
LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warning|error) +[a-z_]+( .*)?"
)
HOSTILE = (
    "a\n2026-01-01T00:00:00.000Z info    stopped code=0",
    "\r\x1b[2J\x1b[31mred\x07\x00",
    "%s %d %(x)s {} {0} {event!r} {0.__class__}",
    '" code=0 text="',
    "back\\slash\\n",
    "right-to-left \u202e and line separator \u2028 and half a pair \udc80",
)

Lines = Callable[[], list[str]]


@pytest.fixture(params=logs.FORMATS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Lines]]:
    """The format, and a function that returns the lines that were logged so far."""
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    output, root = vars(logs._output).copy(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure(request.param, "debug", descriptor)

    def lines() -> list[str]:
        logs.flush(DEADLINE_S)
        return path.read_text("utf-8").splitlines()

    yield request.param, lines
    vars(logs._output).update(output)
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    os.close(descriptor)


def fields(format: str, line: str) -> dict[str, Any]:
    """Return the fields of a line as its reader would: JSON, or words."""
    if format == "json":
        found: dict[str, Any] = json.loads(line)
        return found
    assert LINE.fullmatch(line), line
    pairs = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)', line)
    return {
        name: value[1:-1].replace('\\"', '"') if value.startswith('"') else value
        for name, value in pairs
    }


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_client_cannot_write_into_the_log(text: str, written: tuple[str, Lines]) -> None:
    """One event stays one line of printable characters, in its own field, and nothing is formatted."""
    format, lines = written
    logs.events.warning("connection_refused", client=text, text=text, code="protocol_error")
    (line,) = lines()
    assert line.isprintable()
    found = fields(format, line)
    assert found["code"] == "protocol_error"
    assert found["client"] == found["text"] == escaped(text)


def escaped(text: str) -> str:
    """Return what a log shows of a text; Python reads it back."""
    shown = "".join(
        one if one.isprintable() and one != "\\" else one.encode("unicode_escape").decode()
        for one in text
    )
    assert shown.encode("latin-1", "backslashreplace").decode("unicode_escape") == text
    return shown


def test_a_long_text_is_cut_to_200_characters(written: tuple[str, Lines]) -> None:
    """A name of a megabyte must not fill the disk; what the server itself says stays whole."""
    format, lines = written
    logs.events.warning("connection_refused", text="x" * 1_000, other=logs.OwnText("y" * 1_000))
    found = fields(format, lines()[0])
    assert found["text"] == "x" * 200 + "...(+800)"
    assert found["other"] == "y" * 1_000


def test_values_that_are_no_strings_are_made_safe_too(written: tuple[str, Lines]) -> None:
    """A list or a path may hold anything; numbers and truth stay what they are."""
    format, lines = written
    logs.events.info("recovered", ignored=["a\nb"], path=Path("c\nd"), ms=3, clean=True, torn=None)
    (line,) = lines()
    found = fields(format, line)
    assert "\\nd" in found["path"]
    assert (found["ms"], found["clean"]) == ((3, True) if format == "json" else ("3", "true"))


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_libraries_write_through_the_same_output(
    text: str, written: tuple[str, Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warnings, tracebacks, and arguments that do not fit their format."""
    # Half a pair cannot be told to the process that gathers the reports of several: pytest is not to keep it.
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:1])
    format, lines = written
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("some.library").exception("it failed: %s", text)
    # Straight to the handler: pytest's own one, which hears everything too, does not forgive it.
    misfit = {
        "name": "some.library",
        "levelno": logging.WARNING,
        "msg": "%d wrong",
        "args": (text,),
    }
    logging.getLogger().handlers[0].handle(logging.makeLogRecord(misfit))
    failed, wrong = (fields(format, line) for line in lines())
    assert (failed["logger"], failed["text"]) == ("some.library", escaped(f"it failed: {text}"))
    assert "Traceback" in failed["exception"]
    assert wrong["text"] == "%d wrong"


def test_errors_that_python_writes_by_itself_come_as_events(
    written: tuple[str, Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread, and in a finalizer: written to standard error they would wait for whoever reads it."""
    format, lines = written
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    logs.catch_stray_errors()

    class Bad:
        def __del__(self) -> None:
            raise ValueError("at the end")

    def fails() -> None:
        raise ValueError("in a thread")

    thread = threading.Thread(target=fails, name="reader")
    thread.start()
    thread.join()
    Bad()
    of_thread, of_finalizer = (fields(format, line) for line in lines())
    assert (of_thread["event" if format == "json" else "text"]) in (
        "stray_error",
        "in the thread reader",
    )
    assert "in a thread" in of_thread["exception"]
    assert "at the end" in of_finalizer["exception"]


def test_events_below_the_level_are_not_written(written: tuple[str, Lines], tmp_path: Path) -> None:
    """`--log-level warning` is for those who want to hear of trouble only."""
    _, lines = written
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND)
    logs.configure("text", "warning", descriptor)
    logs.events.info("started")
    logging.getLogger("some.library").info("hello")
    assert lines() == []
    logs.events.warning("connection_ended", reason="late")
    assert len(lines()) == 1
    os.close(descriptor)


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Yield the calls of a module that log an event, with the level."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            if isinstance(of, ast.Name) and of.id == "events" and node.func.attr in logs.LEVELS:
                yield node, node.func.attr


def constants(path: Path) -> set[str]:
    """Return the names of events that stand in a module."""
    names = {call.args[0] for call, _ in calls(path)}
    return {str(name.value) for name in names if isinstance(name, ast.Constant)}


def test_every_event_of_a_worker_stands_in_its_table_and_the_table_has_no_other() -> None:
    reported = {  # through a Report, or chosen by a variable
        str(node.args[0].value)
        for path in [*WORKERS, *python_files(WORKER)]
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(".event")
        and isinstance(node.args[0], ast.Constant)
    }
    used = {name for path in WORKERS for name in constants(path)} | reported
    assert used - set(logs.EVENTS) <= set(WORKER_EVENTS)
    assert set(WORKER_EVENTS) - used <= {"done", "failed", "rejected", "settings_differ"}


def _name(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


def test_every_event_stands_in_the_table_and_the_table_has_no_other() -> None:
    """Whoever filters by name must find it again in the next release."""
    used = {  # chosen by a variable, or handed on
        *("log_failed", "start_refused", "library", "lines_dropped"),
        *("connection_refused", "connection_ended"),
        *("messages_moved", "messages_redriven", "queue_unused", "queue_created", "queue_deleted"),
    }
    used |= {name for path in SHELL if path not in WORKERS for name in constants(path)}
    for path in python_files(
        CORE
    ):  # which leaves notes of them: `effects.note(event, ...)`, `effects.warn(event, ...)`, `_note(..., event)`
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and _name(node).lstrip("_") in ("note", "warn"):
                inside = [each for arg in node.args[:3] for each in ast.walk(arg)]
                texts = [each.value for each in inside if isinstance(each, ast.Constant)]
                used |= {text for text in texts if isinstance(text, str) and text}
    assert used == set(logs.EVENTS)


@pytest.mark.parametrize("path", SHELL, ids=name_of)
def test_an_event_has_a_name_and_fields_and_no_format(path: Path) -> None:
    """A second positional argument would be formatted into the name."""
    assert not [call.lineno for call, _ in calls(path) if len(call.args) != 1]


# -- what is said when ----------------------------------------------------------------------------


def test_a_refused_peer_and_a_lost_one_are_named(written: tuple[str, Lines]) -> None:
    """The connection, its client's own name, and why."""
    format, lines = written
    hand = Hand()
    peer = hand.connect()
    peer.give(frame(part("hello", protocol=1, client="ev\nil")))
    peer.give(frame(part("ping"), request=1, sequence=1))
    silent = hand.login()
    hand.pass_s(31)
    assert silent.closed
    found = [fields(format, line) for line in lines()]
    refused = next(each for each in found if "code" in each)
    assert (refused["client"], refused["code"]) == ("ev\\nil", "protocol_error")
    ended = next(each for each in found if "reason" in each)
    assert (str(ended["connection"]), ended["client"]) == ("2", "hand")


def test_nothing_is_logged_for_a_message(written: tuple[str, Lines]) -> None:
    """Not even at debug: a login, a new queue, and that is all."""
    _, lines = written
    hand = Hand()
    peer = hand.login()
    for sequence in range(1, 51):
        head = part("publish", queue="q", count=1)
        bins: dict[str, Any] = {"lengths": bytes([0, 0, 0, 0, 1, 0, 0, 0]), "blob": b"x"}
        peer.give(frame(head, sequence=sequence, answered_below=sequence, **bins))
    hand.pass_s(2)
    said = [line for line in lines() if "session_opened" not in line]
    assert len(said) == 1
    assert "queue_created" in said[0]
    assert "lease_ms" not in said[0], "settings that nobody chose"


@pytest.mark.parametrize(
    ("settings", "level"), [({}, "warning"), ({"delete_unused_ms": 10_000}, "debug")]
)
def test_a_deleted_queue_leaves_a_line(
    written: tuple[str, Lines], settings: dict[str, Any], level: str
) -> None:
    """Somebody will ask where the messages are; not of one that was made to end, as each chord of Celery is."""
    _, lines = written
    hand = Hand()
    peer = hand.login()
    peer.give(frame(part("queue_set", queue="q", settings=settings), request=1))
    hand.pass_s(2)
    peer.give(frame(part("queue_delete", queue="q"), request=2))
    hand.pass_s(2)
    hand.pass_s(2)
    (said,) = [line for line in lines() if "queue_deleted" in line]
    assert "q" in said
    assert level in said
    (made,) = [line for line in lines() if "queue_created" in line]
    assert ("info" if level == "warning" else level) in made


@pytest.mark.parametrize("messages", [0, 2])
def test_a_temporary_queue_that_took_messages_along_is_a_warning(
    written: tuple[str, Lines], messages: int
) -> None:
    """How many they were; one that was empty is as it should be."""
    format, lines = written
    hand = Hand()
    engine, times = hand.server.engine, iter(range(1, 10_000_000, 1_000))
    clock: Any = SimpleNamespace(now_ms=lambda: next(times), unix_ms=lambda: 1)
    engine.clock = clock
    peer = hand.login()
    settings = {"delete_unused_ms": 10_000}
    peer.give(frame(part("queue_set", queue="q", settings=settings), request=1))
    for sequence in range(1, messages + 1):
        head = part("publish", queue="q", count=1)
        bins: dict[str, Any] = {"lengths": bytes([0, 0, 0, 0, 1, 0, 0, 0]), "blob": b"x"}
        peer.give(frame(head, sequence=sequence, answered_below=sequence, **bins))
    for _ in range(30):  # each look at the clock is a second later
        engine.time_moved()
    (said,) = [line for line in lines() if "queue_unused" in line]
    assert fields(format, said)["messages"] in (messages, str(messages))
    assert ("warning" in said) == bool(messages)


def test_what_a_client_did_says_who_it_was(written: tuple[str, Lines]) -> None:
    """The core knows the connection; its address and session are added. One that has gone has none."""
    format, lines = written
    hand = Hand()
    hand.login()
    for connection in (1, 99):
        effects = Effects()
        effects.note("queue_purged", client="x", connection=connection, queue="q", messages=3)
        hand.server.engine._route(effects)
    purged, anonymous = (fields(format, line) for line in lines() if "queue_purged" in line)
    assert (purged["client"], purged["peer"], str(purged["messages"])) == (
        "x",
        "192.0.2.7:50007",
        "3",
    )
    assert int(purged["session"]) > 0
    assert (str(anonymous["connection"]), "peer" in anonymous) == ("99", False)


def test_a_full_disk_is_told_once_and_its_end_too(written: tuple[str, Lines]) -> None:
    """Not for each publish that is refused."""
    _, lines = written
    hand = Hand()
    peer = hand.login()
    hand.log.room = Room.REFUSED
    for sequence in range(1, 6):
        head = part("publish", queue="q", count=1)
        bins: dict[str, Any] = {"lengths": bytes(8), "blob": b""}
        peer.give(frame(head, sequence=sequence, answered_below=sequence, **bins))
    hand.log.set_room(Room.REFUSED)
    hand.log.set_room(Room.GRANTED)
    told = [name for line in lines() for name in re.findall(r"disk_full|disk_has_room", line)]
    assert told == ["disk_full", "disk_has_room"]


def test_a_broker_tells_its_life_in_json(tmp_path: Path) -> None:
    """What a log collector gets on standard error, from the start to the stop."""
    server = BrokerServer(tmp_path / "data", "--log-format", "json")
    try:
        assert server.stop() == 0
    finally:
        server.close()
    told = [json.loads(line) for line in server.lines if line.startswith("{")]
    names = [event["event"] for event in told]
    assert names == ["recovered", "started", "stopping", "drained", "stopped"]
    assert all(re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}Z", event["time"]) for event in told)
    assert told[1]["address"] == f"127.0.0.1:{server.port}"
    assert told[-1]["code"] == 0


def test_the_banner_says_where_and_on_what(tmp_path: Path) -> None:
    """Version, address, the whole path, the durability, what was found, and how the last run ended."""
    server = BrokerServer(tmp_path / "data", "--log-level", "error")
    try:
        server.kill()
        server.restart()
    finally:
        server.close()
    first, second = server.lines[:5], server.lines[5:]
    assert re.fullmatch(rf"minibroker [\d.]+ listening on 127\.0\.0\.1:{server.port}", first[0])
    assert first[1].split() == ["data", str(tmp_path / "data")]
    assert first[2].split()[:2] == ["durability", "sync"]
    assert re.search(r"0 messages in 0 queues, 0 leases, 0 sessions in \d+ ms", first[3])
    assert "a new data directory" in first[4]
    assert "after a crash" in second[4]
