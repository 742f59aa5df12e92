"""The configuration file of `serve`: what goes before what, what is refused, and what a hang-up changes."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from support import warm
from support.broker import BrokerServer
from support.processes import look_until


def run(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return warm.run(words, env)


def test_the_environment_goes_before_the_file_and_the_command_line_before_both(
    tmp_path: Path,
) -> None:
    file = tmp_path / "minibroker.toml"
    file.write_text('port = 7300\nmax_queues = 5\nloop = "asyncio"\nauto-create = false\n')
    env = {
        "MINIBROKER_MAX_QUEUES": "6",
        "MINIBROKER_LOOP": "uvloop",
        "MINIBROKER_CONFIG": str(file),
    }
    ended = run("config", "--json", "--", "--loop", "asyncio", env=env)
    rows = {name: (row["value"], row["from"]) for name, row in json.loads(ended.stdout).items()}
    assert rows["port"] == ("7300", str(file))
    assert rows["max_queues"] == ("6", "environment")
    assert rows["loop"] == ("asyncio", "command line")
    assert rows["auto_create"] == (False, str(file))
    assert rows["host"] == ("127.0.0.1", "default")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", "there is no flag --prot. Did you mean 'port'?"),
        ('port = "x"', "'port': 'x' is not a valid integer"),
        ("port = 70000", "'port': 70000 is not in the range"),
        ('auto-create = "yes"', "'auto-create' is 'yes'; it takes true or false"),
        ("port = [1]", "'port' is [1]; it takes one value"),
        ('http-allow-host = "a"', "'http-allow-host' is 'a'; it takes a list"),
        ("max-queues = 1\nmax_queues = 1", "stands twice"),
        ("config = 'other.toml'", "there is no flag --config"),
        ("port =", "is no TOML"),
        ("[serve]\nport = 1", "there is no flag --serve"),
        ("host = '0.0.0.0'", "refusing to listen on 0.0.0.0"),
        ("tls-key = '/dev/null'", "need a certificate"),
    ],
)
def test_what_a_file_may_not_say_is_named_and_nothing_is_started(
    text: str, says: str, tmp_path: Path
) -> None:
    file = tmp_path / "minibroker.toml"
    file.write_text(text)
    for more in ([], ["--check-config"]):
        data = str(tmp_path / "data")
        ended = run("serve", "--config", str(file), "--data-dir", data, "--no-http", *more)
        assert ended.returncode == 2
        assert says in ended.stderr
        assert not Path(data).exists()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    ended = run("serve", "--config", str(tmp_path / "none.toml"))
    assert (ended.returncode, "cannot be read" in ended.stderr) == (2, True)


def test_a_check_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "minibroker.toml"
    file.write_text(f'data-dir = "{tmp_path / "data"}"\nmemory-limit = "128M"')
    ended = run("serve", "--config", str(file), "--check-config")
    assert (ended.returncode, ended.stdout) == (
        0,
        "the configuration is fine; nothing was started\n",
    )
    assert not (tmp_path / "data").exists()


def test_a_hang_up_reads_the_file_again(tmp_path: Path) -> None:
    file, token = tmp_path / "minibroker.toml", tmp_path / "token"
    file.write_text("max-queues = 1\n")
    token.write_bytes(b"\xff" * 20)
    server = BrokerServer(
        tmp_path / "data", "--config", str(file), "--http", "127.0.0.1:0", env={"MINIBROKER_NO_HTTP": "0"}
    )  # fmt: skip

    def hang_up(text: str, says: str) -> None:
        file.write_text(text)
        seen = server.output.count(says)
        server.process.send_signal(signal.SIGHUP)
        look_until(lambda: server.output.count(says) > seen, server.process, says)

    def publish(queue: str) -> int:
        return run("publish", "--url", server.url, queue, "x").returncode

    try:
        assert publish("one") == 0
        assert publish("two") != 0
        hang_up("max-queues = 2\nloop = 'asyncio'", "changed=max-queues after_restart=loop")
        assert publish("two") == 0
        for text in ("max-queues = x", f"http-token-file = '{token}'", 'tls-cert = "a\\u0000b"'):
            hang_up(text, "configuration_refused")
        hang_up('max-queues = 2\nlog-level = "debug"', "changed=log-level after_restart=nothing")
        assert publish("two") == 0
        look_until(lambda: "session_opened" in server.output, server.process, "a debug event")
        hang_up('memory-limit = "100M"\nlog-level = "debug"', 'changed="max-queues, memory-limit"')
        server.prints("memory_limit_bytes=104857600")
    finally:
        server.close()


def test_values_are_shown_as_they_are_typed(tmp_path: Path) -> None:
    """Not as Python writes them: true and false, lists with spaces between, and `-` where nobody said anything."""
    env = {"MINIBROKER_HTTP_ALLOW_HOST": "a.example b.example"}
    words = ("config", "--data-dir", str(tmp_path), "--no-auto-create")
    table = [line.split(None, 2) for line in run(*words, env=env).stdout.splitlines()]
    shown = {row[0]: row[1] for row in table}
    assert (shown["--auto-create"], shown["--standby"]) == ("false", "false")
    assert (shown["--log"], shown["--webhook-events"], shown["--drain-timeout"]) == (
        "-",
        "-",
        "10s",
    )
    assert ["--http-allow-host", "a.example"] in [row[:2] for row in table]
    found = json.loads(run(*words, "--json", env=env).stdout)
    assert found["http_allow_host"]["value"] == ["a.example", "b.example"]
    assert (found["log"]["value"], found["auto_create"]["value"]) == (None, False)
    assert (found["webhook_events"]["value"], found["port"]["value"]) == ([], "7272")
