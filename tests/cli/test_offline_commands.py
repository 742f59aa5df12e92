"""Commands that need no server, and what all commands say when there is none."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from typing_commands import CLEAN, output, typed, typed_at

from minibrokerd.cli.log import WITH_MESSAGES
from minibrokerd.cli.main import COMMANDS, main
from minibrokerd.cli.stats import RATES, rates
from minibrokerd.core.model.records import RECORD_TYPES
from minibrokerd.process import exits
from support.broker import COMMAND, BrokerServer


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is bound and does not listen: certainly refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    "words",
    [
        ("stats",),
        ("queues",),
        ("publish", "q", "x"),
        ("consume", "q"),
        ("dlq", "list", "q"),
        ("ping", "--wait", "0.2"),
    ],
)
def test_an_unreachable_broker_ends_with_69(closed_port: int, words: tuple[str, ...]) -> None:
    """The text names the address, the cause and the next step."""
    url = f"minibroker://127.0.0.1:{closed_port}"
    done = typed(*words, "--url", url)
    assert (done.returncode, done.stdout) == (exits.UNREACHABLE, "")
    tries, fails = done.stderr.splitlines()
    wait = "200ms" if "ping" in words else "3s"
    assert re.match(f"waiting up to {wait} for {url}: .*(Connect call failed|refused)", tries)
    assert url in fails
    assert "Connect call failed" in fails or "refused" in fails
    assert "minibroker serve" in fails


def test_a_program_that_asked_for_json_reads_of_the_end_alone(closed_port: int) -> None:
    """One object."""
    url = f"minibroker://127.0.0.1:{closed_port}"
    done = typed("queues", "--url", url, "--json", "--timeout", "200ms")
    assert json.loads(done.stderr)["error"]["exit_code"] == exits.UNREACHABLE


def test_that_it_waits_is_said_while_it_waits() -> None:
    """Also of what takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"minibroker://127.0.0.1:{listener.getsockname()[1]}"
        with subprocess.Popen(
            [*COMMAND, "queues", "--url", url], stderr=subprocess.PIPE, text=True, env=CLEAN
        ) as waiting:
            assert waiting.stderr is not None
            said = waiting.stderr.readline()
            assert waiting.poll() is None
            waiting.kill()
    assert said == f"waiting up to 3s for {url}: no answer yet\n"


def test_a_server_that_speaks_something_else_is_told_apart() -> None:
    """An HTTP server on the port is no reason to look for ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=_answer_as_http, args=(listener,))
        answering.start()
        url = f"minibroker://127.0.0.1:{listener.getsockname()[1]}"
        done = typed("ping", "--url", url, "--wait", "0.5")
        answering.join()
    assert done.returncode == exits.UNREACHABLE
    assert url in done.stderr
    assert "speaks HTTP" in done.stderr


def _answer_as_http(listener: socket.socket) -> None:
    listener.settimeout(5)
    connection, _ = listener.accept()
    with connection:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    "url", ["localhost:7272", "http://localhost", "minibroker://", "minibroker://h:x"]
)
def test_a_wrong_url_ends_with_2(url: str) -> None:
    """Before anything is tried, with the form that is expected."""
    done = typed("ping", "--url", url)
    assert done.returncode == exits.USAGE
    assert "minibroker://host:7272" in done.stderr


def test_ping_says_how_long_the_answer_took(broker_server: BrokerServer) -> None:
    """What a health check calls."""
    (line,) = output(broker_server, "ping")
    assert line.startswith(f"{broker_server.url} answered in ")
    assert len(output(broker_server, "ping", "--count", "3", "--json")) == 3


def test_ping_waits_for_a_server_that_comes_later(tmp_path: Path) -> None:
    """So a script can start both."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"minibroker://127.0.0.1:{port}"
    with subprocess.Popen(
        [*COMMAND, "ping", "--url", url, "--wait", "30"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=CLEAN,
    ) as ping:
        assert ping.stderr is not None
        assert ping.stderr.readline().startswith("waiting up to 30s")
        server = BrokerServer(tmp_path / "data", port=port)
        try:
            printed, _ = ping.communicate(timeout=30)
        finally:
            server.close()
    assert (ping.returncode, "answered in" in printed) == (0, True)


# -- log dump -----------------------------------------------------------------------------------


def test_the_log_is_dumped_as_json_lines(broker_server: BrokerServer) -> None:
    """Also while a server runs on it, and without a trace."""
    output(broker_server, "publish", "q", "--key", "k", stdin="one\ntwo\n")
    output(broker_server, "consume", "q", "--exec", "exit 65", "--count", "1")
    done = typed("log", "dump", "--data-dir", str(broker_server.data_dir), "--bodies")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [record["type"] for record in records]
    assert kinds[:3] == ["queue", "reserve", "publish"]
    assert [message["body"] for message in records[2]["messages"]] == ["one", "two"]
    move = records[kinds.index("move")]
    assert move["entry"]["error_text"] == "exit code 65"
    assert broker_server.stop() == 0
    before = _files(broker_server.data_dir)
    limited = typed("log", "dump", "--data-dir", str(broker_server.data_dir), "--limit", "2")
    assert len(limited.stdout.splitlines()) == 2
    assert _files(broker_server.data_dir) == before


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_dump_lists_the_messages_of_every_record_that_has_some() -> None:
    """Of copies too, also those of runs."""
    with_bodies = {meta for meta in RECORD_TYPES.values() if "encoding" in meta.__struct_fields__}
    assert set(WITH_MESSAGES) == with_bodies


def test_a_dump_of_nothing_says_so(tmp_path: Path) -> None:
    """It makes no directory."""
    done = typed("log", "dump", "--data-dir", str(tmp_path / "none"))
    assert done.returncode == exits.NOT_WRITABLE
    assert "--data-dir" in done.stderr
    assert not (tmp_path / "none").exists()
    done = typed("log", "dump", "--data-dir", str(tmp_path))
    assert (done.returncode, "holds no log" in done.stderr) == (exits.NOT_WRITABLE, True)


def test_a_dump_of_a_damaged_log_prints_what_comes_before(broker_server: BrokerServer) -> None:
    """And ends with the exit code and the words of `serve`."""
    for number in range(3):
        output(broker_server, "publish", "q", f"body-{number}")
    assert broker_server.stop() == 0
    (segment,) = broker_server.data_dir.glob("segment-*.log")
    data = bytearray(segment.read_bytes())
    data[data.index(b"body-1")] ^= 1
    segment.write_bytes(data)
    done = typed("log", "dump", "--data-dir", str(broker_server.data_dir), "--bodies")
    assert done.returncode == exits.DAMAGED
    assert "body-0" in done.stdout
    assert "body-2" not in done.stdout
    assert str(segment) in done.stderr


# -- config, completion, help -------------------------------------------------------------------


def test_config_shows_each_value_and_where_it_comes_from() -> None:
    """Command line over environment over default, without starting anything."""
    env = {"MINIBROKER_PORT": "7000", "MINIBROKER_HOST": "127.0.0.2"}
    done = typed("config", "--json", "--port", "8000", env=env)
    rows = json.loads(done.stdout)
    assert (rows["port"]["value"], rows["port"]["from"]) == ("8000", "command line")
    assert (rows["host"]["value"], rows["host"]["from"]) == ("127.0.0.2", "environment")
    assert (rows["data_dir"]["value"], rows["data_dir"]["from"]) == ("data", "default")
    assert "MINIBROKER_PORT" in typed("config").stdout
    assert typed("config", "--port", "x").returncode == exits.USAGE


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_us_back(shell: str) -> None:
    """The shell asks the command itself what may follow."""
    assert "_MINIBROKER_COMPLETE" in typed("completion", shell).stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")
def test_bash_completes_commands_and_flags() -> None:
    """What the script asks for, as bash asks it."""
    asked = {
        "_MINIBROKER_COMPLETE": "bash_complete",
        "COMP_WORDS": "minibroker pu",
        "COMP_CWORD": "1",
    }
    assert typed(env=asked).stdout.split() == ["plain,publish", "plain,purge"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_variable_of_every_flag(command: str) -> None:
    """Whoever writes a unit file or a script looks here."""
    above = click.Context(main, info_name="minibroker", auto_envvar_prefix="MINIBROKER")
    found = main.get_command(above, command)
    assert found is not None
    said = found.get_help(click.Context(found, above, command))
    flags = re.findall(r"^  (?:-\w, )?--(?!help)\S+", said, re.MULTILINE)
    assert " ".join(said.split()).count("env var: MINIBROKER_") == len(flags)


def test_the_exit_codes_stand_in_one_place() -> None:
    """Which the help of all commands names."""
    codes = re.findall(r"^ *(\d+) ", typed("exits").stdout, re.MULTILINE)
    assert codes == [str(row.code) for row in (*exits.EXITS, *exits.CHECK_EXITS)]
    assert "`minibroker exits`" in typed("--help").stdout


def test_help_of_a_narrow_terminal_cuts_no_description() -> None:
    """It goes on in the next line, of which none is wider than the terminal."""
    commands = [main, *(main.get_command(click.Context(main), name) for name in COMMANDS)]
    groups = [each for each in commands if isinstance(each, click.Group)]
    assert len(groups) > 4
    for group in groups:
        narrow, wide = (group.get_help(click.Context(group, terminal_width=at)) for at in (60, 500))
        assert max(map(len, narrow.splitlines())) <= 60
        assert "..." not in narrow.partition("Commands:")[2]
        assert "".join(narrow.split()) == "".join(wide.split())


def test_help_of_subcommands_names_variables_too() -> None:
    """Their own, unlike each other."""
    assert "MINIBROKER_DLQ_LIST_COUNT" in typed("dlq", "list", "--help").stdout
    assert "MINIBROKER_QUEUE_DELETE_YES" in typed("queue", "delete", "--help").stdout


def test_an_unknown_command_or_flag_names_what_is_near() -> None:
    """And ends with 2."""
    done = typed("pulbish")
    assert (done.returncode, "publish" in done.stderr) == (exits.USAGE, True)
    done = typed("serve", "--prot", "1")
    assert (done.returncode, "--port" in done.stderr) == (exits.USAGE, True)


def test_flags_come_from_the_environment(broker_server: BrokerServer) -> None:
    """The shared ones and those of one command."""
    output(broker_server, "publish", "q", stdin="a\nb\n")
    env = {
        "MINIBROKER_URL": broker_server.url,
        "MINIBROKER_PEEK_COUNT": "1",
        "MINIBROKER_JSON": "1",
    }
    assert len(typed("peek", "q", env=env).stdout.splitlines()) == 1


def test_rates_are_growth_a_second() -> None:
    """From two looks; the first has nothing to compare with."""
    before = dict.fromkeys(RATES, 5)
    now = before | {"published": 25, "failed": 6}
    assert dict(zip(RATES, rates(before, now, 2.0), strict=True)) == dict.fromkeys(RATES, 0) | {
        "published": 10
    }
    assert not any(rates(None, now, 1.0))
    # The server was started again meanwhile.
    assert rates(now, dict.fromkeys(RATES, 4), 2.0) == [2] * len(RATES)


@pytest.mark.parametrize("words", ["peek q --count 2000 --json", "consume q", "log dump"])
def test_a_closed_pipe_ends_a_command_quietly(broker_server: BrokerServer, words: str) -> None:
    """`| head` is how people look at long output; what was only shown goes back at once."""
    for _ in range(3):
        output(broker_server, "publish", "q", stdin="\n".join(["x" * 100] * 1_000))
    env = {
        **CLEAN,
        "MINIBROKER_URL": broker_server.url,
        "MINIBROKER_DATA_DIR": str(broker_server.data_dir),
    }
    command = f"{' '.join(COMMAND)} {words} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False, env=env
    )
    assert (done.returncode, done.stderr) == (exits.PIPE, "")
    assert len(done.stdout.splitlines()) == 1
    counters = json.loads(typed_at(broker_server, "stats", "q", "--json").stdout)["queues"]["q"]
    assert (counters["ready"], counters["begun"]) == (3_000, 0)
