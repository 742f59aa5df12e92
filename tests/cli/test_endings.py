"""How commands end: the exit codes of the table, whatever becomes of the input, the output or the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminal import terminal
from typing_commands import CLEAN, output, refusal, typed, typed_at, values

import minibroker
from minibrokerd.process import exits
from support import warm
from support.broker import COMMAND, BrokerServer

QUEUE = "emails"
COMMANDS_THAT_LIST = (
    f"peek {QUEUE} --count 2000",
    f"peek {QUEUE} --count 2000 --json",
    "stats --watch --interval 100ms",
    "stats --watch --interval 100ms --json",
    "queues",
    f"queue show {QUEUE}",
    "exits",
    "config",
    "--help",
)


@pytest.fixture
def filled(broker_server: BrokerServer) -> BrokerServer:
    """A server with 2,000 messages in one queue."""
    output(broker_server, "publish", QUEUE, stdin="\n".join(["x" * 100] * 2_000))
    return broker_server


def in_bash(server: BrokerServer, script: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `$M` is the command."""
    return subprocess.run(
        ["bash", "-c", f"M='{' '.join(COMMAND)}'; {script}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**CLEAN, "MINIBROKER_URL": server.url},
    )


def wrote_to(output: int, server: BrokerServer, words: str, folder: Path) -> tuple[int, str]:
    """Return the exit code of a command whose output goes to this descriptor, and its standard error."""
    errors = folder / "errors"
    environment = {**CLEAN, "MINIBROKER_URL": server.url}
    try:
        process = warm.start_logged(words.split(), environment, errors, stdout=output)
        return process.wait(60), errors.read_text()
    finally:
        os.close(output)


@pytest.mark.parametrize("words", COMMANDS_THAT_LIST)
def test_a_reader_that_has_gone_ends_every_list(
    filled: BrokerServer, words: str, tmp_path: Path
) -> None:
    """141, whether it took a line or none, and not a word."""
    if words.startswith(("peek", "stats")):  # the others may have written all before it goes
        piped = in_bash(filled, f"$M {words} | head -c1 > /dev/null; echo ${{PIPESTATUS[0]}}")
        assert (piped.stdout, piped.stderr) == ("141\n", "")
    reader, writer = os.pipe()
    os.close(reader)
    assert wrote_to(writer, filled, words, tmp_path) == (exits.PIPE, "")


@pytest.mark.parametrize("words", [*COMMANDS_THAT_LIST, f"publish {QUEUE} x", "ping"])
def test_output_that_cannot_be_written_is_said_once(
    filled: BrokerServer, words: str, tmp_path: Path
) -> None:
    """1, and the reason that the system gives."""
    code, said = wrote_to(os.open("/dev/full", os.O_WRONLY), filled, words, tmp_path)
    assert code == exits.REFUSED
    assert said.count("No space left") == 1
    assert "Traceback" not in said
    assert "Exception ignored" not in said


def test_ctrl_c_at_a_question_is_an_interruption(filled: BrokerServer) -> None:
    """130, as anywhere else; an answer of no, or none, is 1."""
    with terminal(80, "purge", QUEUE, env={"MINIBROKER_URL": filled.url}) as made:
        made.read_until(b"[y/N]")
        made.interrupt()
        assert made.process.returncode == exits.INTERRUPTED
    assert "nothing was done" in refusal(filled, exits.REFUSED, "purge", QUEUE, stdin="n\n")
    assert "nothing was done" in refusal(filled, exits.REFUSED, "purge", QUEUE)
    with terminal(80, "purge", QUEUE, env={"MINIBROKER_URL": filled.url}) as made:
        made.read_until(b"[y/N]")
        made.type("y\n")
        assert "purged 2,000" in made.end()


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (exits.REFUSED, "unknown_queue", ("peek", "nope")),
        (exits.REFUSED, "bad_name", ("publish", "a.dlq", "x")),
        (exits.REFUSED, None, ("message", "show", QUEUE, "1-99999")),
        (exits.USAGE, None, ("peek", QUEUE, "--count", "many")),
        (exits.USAGE, None, ("peek",)),
        (exits.USAGE, None, ("publish", QUEUE, "x", "--delay", "soon")),
        (exits.UNREACHABLE, "connection_lost", ("queues", "--url", "minibroker://127.0.0.1:1")),
        (exits.NOT_WRITABLE, None, ("log", "check", "--data-dir", "/no/such/place")),
    ],
)
def test_an_error_is_json_where_json_was_asked_for(
    filled: BrokerServer, code: int, error: str | None, words: tuple[str, ...]
) -> None:
    """One object on standard error: its text, its code where it has one, the exit code."""
    done = typed_at(filled, *words, "--json")
    assert (done.returncode, done.stdout) == (code, "")
    said = json.loads(done.stderr)["error"]
    assert (said["exit_code"], said["code"]) == (code, error)
    assert said["text"]


def test_a_timeout_is_an_answer_that_came_too_late(broker_server: BrokerServer) -> None:
    """1, within the time that was given."""
    broker_server.process.send_signal(signal.SIGSTOP)
    try:
        done = typed_at(broker_server, "queues", "--timeout", "300ms")
    finally:
        broker_server.process.send_signal(signal.SIGCONT)
    assert done.returncode in {exits.REFUSED, exits.UNREACHABLE}, done.stderr
    assert "Traceback" not in done.stderr


# -- JSON ---------------------------------------------------------------------------------------


async def test_json_is_json_whatever_a_body_is(broker_server: BrokerServer) -> None:
    """What JSON has no number for is a string, large integers are whole, bytes are there as base64, too."""
    deep: object = 1
    for _ in range(150):
        deep = [deep]
    bodies = [float("nan"), float("-inf"), 2**63 - 1, b"\xff\x00", {"b": b"\xff"}, b"plain", deep]
    async with minibroker.connect(broker_server.url) as broker:
        await broker.queue(QUEUE).publish_many(bodies, headers={"x": float("inf")})
    done = typed_at(broker_server, "peek", QUEUE, "--json")

    def refuse(text: str) -> None:
        raise AssertionError(text)

    found = [json.loads(line, parse_constant=refuse) for line in done.stdout.splitlines()]
    assert [each["body"] for each in found] == [
        "NaN", "-Infinity", 2**63 - 1, "\\xff\x00", {"b": "\\xff"}, "plain", deep,
    ]  # fmt: skip
    assert [each.get("body_base64") for each in found][3:6] == ["/wA=", None, None]
    assert [each["encoding"] for each in found][2:4] == ["msgpack", "bytes"]
    assert found[0]["headers"] == {"x": "Infinity"}


# -- publishing what comes ----------------------------------------------------------------------


@pytest.fixture
def publishing(broker_server: BrokerServer) -> Iterator[subprocess.Popen[bytes]]:
    """A `publish` whose input stays open."""
    command = [*COMMAND, "publish", QUEUE, "--url", broker_server.url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=CLEAN
    ) as process:
        yield process
        process.kill()


def test_a_slow_pipe_is_published_as_it_speaks(publishing: subprocess.Popen[bytes]) -> None:
    """A line at once, and not before it has ended; the last one needs no end."""
    assert publishing.stdin is not None
    assert publishing.stdout is not None
    for number, text in enumerate([b"one\n", b"tw", b"o\nthree\nfo"]):
        publishing.stdin.write(text)
        publishing.stdin.flush()
        for _ in range(text.count(b"\n")):
            assert publishing.stdout.readline().endswith(b" sync\n"), number
    publishing.stdin.write(b"ur")
    publishing.stdin.close()
    assert publishing.stdout.readline() == b"1-3 sync\n"
    assert publishing.wait(30) == exits.DONE


def test_ctrl_c_ends_a_publish_that_waits_for_its_input(
    publishing: subprocess.Popen[bytes],
) -> None:
    """At once, with 130."""
    assert publishing.stdin is not None
    assert publishing.stdout is not None
    publishing.stdin.write(b"one\n")
    publishing.stdin.flush()
    publishing.stdout.readline()
    publishing.send_signal(signal.SIGINT)
    assert publishing.wait(30) == exits.INTERRUPTED


def test_started_in_the_background_of_a_script_it_ignores_ctrl_c(
    broker_server: BrokerServer,
) -> None:
    """As any program does: the shell has SIGINT ignored for what it starts with `&`."""
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *COMMAND]
    with subprocess.Popen(
        [*command, "publish", QUEUE, "--url", broker_server.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=CLEAN,
    ) as publishing:
        assert publishing.stdin is not None
        assert publishing.stdout is not None
        publishing.stdin.write(b"one\n")
        publishing.stdin.flush()
        assert publishing.stdout.readline().endswith(b" sync\n")
        publishing.send_signal(signal.SIGINT)
        printed, _ = publishing.communicate(b"two\n", timeout=30)
    assert (publishing.returncode, printed.count(b" sync\n")) == (exits.DONE, 1)


def test_a_huge_line_ends_it_and_names_the_line(broker_server: BrokerServer) -> None:
    """What came before is kept; it is not read into memory first."""
    text = "a\nb\n" + "x" * 3_000_000
    done = typed_at(broker_server, "publish", QUEUE, stdin=text)
    assert (done.returncode, len(done.stdout.splitlines())) == (exits.USAGE, 2)
    assert "line 3 has more than 1,048,576 bytes" in done.stderr
    assert "published before this: 2" in done.stderr


def test_no_input_is_no_message(broker_server: BrokerServer) -> None:
    """From a pipe, a file and a device."""
    assert output(broker_server, "publish", QUEUE) == []
    assert in_bash(broker_server, f"$M publish {QUEUE} < /dev/null").returncode == 0
    assert in_bash(broker_server, f"$M publish {QUEUE} < /etc/hostname").stdout == "1-0 sync\n"


def test_what_is_no_json_is_named_and_the_lines_before_it_are_published(
    broker_server: BrokerServer,
) -> None:
    """So that one can go on there."""
    done = typed_at(broker_server, "publish", QUEUE, "--as", "json", stdin="1\n2\n{oops\n4\n")
    assert (done.returncode, "body 3 is not JSON" in done.stderr) == (exits.USAGE, True)
    assert [message["body"] for message in values(broker_server, "peek", QUEUE)] == [1, 2]


def test_a_file_may_have_any_name(broker_server: BrokerServer, tmp_path: Path) -> None:
    """Paths are bytes: it is read, and where it is not there, named."""
    script = f"printf x > {tmp_path}/$'\\xff'; $M publish {QUEUE} --file {tmp_path}/$'\\xff'"
    assert in_bash(broker_server, script).stdout == "1-0 sync\n"
    done = in_bash(broker_server, f"$M publish {QUEUE} --file {tmp_path}/$'\\xfe'")
    assert (done.returncode, "does not exist" in done.stderr) == (exits.USAGE, True)
    done = in_bash(broker_server, f"$M log check --data-dir {tmp_path}/$'\\xfe'")
    assert (done.returncode, "\\udcfe" in done.stderr) == (exits.NOT_WRITABLE, True)
    assert typed("exits").returncode == 0
