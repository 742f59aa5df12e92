"""Which server a command asks: the one that `serve` would start here, whatever an orchestrator has set."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import minibroker
from minibroker.session.address import default_url, passed_over, url_of
from minibrokerd.cli.main import COMMANDS, main
from minibrokerd.process import exits
from support import warm
from support.broker import BrokerServer
from support.source import ROOT

# What Kubernetes sets for a Service called minibroker with one port, and what links of Docker set.
SERVICE = {
    "MINIBROKER_SERVICE_HOST": "10.0.0.1",
    "MINIBROKER_SERVICE_PORT": "7272",
    "MINIBROKER_SERVICE_PORT_BROKER": "7272",
    "MINIBROKER_PORT": "tcp://10.0.0.1:7272",
    "MINIBROKER_PORT_7272_TCP": "tcp://10.0.0.1:7272",
    "MINIBROKER_PORT_7272_TCP_PROTO": "tcp",
    "MINIBROKER_PORT_7272_TCP_PORT": "7272",
    "MINIBROKER_PORT_7272_TCP_ADDR": "10.0.0.1",
    "MINIBROKER_NAME": "/app/minibroker",
}
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("MINIBROKER_")}
URL = "minibroker://127.0.0.1:7272"


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, URL),
        ({"MINIBROKER_PORT": "7300"}, "minibroker://127.0.0.1:7300"),
        ({"MINIBROKER_PORT": "0"}, URL),
        ({"MINIBROKER_PORT": ""}, URL),
        ({"MINIBROKER_HOST": "0.0.0.0"}, URL),
        ({"MINIBROKER_HOST": ""}, URL),
        ({"MINIBROKER_HOST": "::", "MINIBROKER_PORT": "7300"}, "minibroker://[::1]:7300"),
        ({"MINIBROKER_HOST": "10.1.2.3"}, "minibroker://10.1.2.3:7272"),
        ({"MINIBROKER_URL": "minibroker://a:1", "MINIBROKER_PORT": "7300"}, "minibroker://a:1"),
        ({"MINIBROKER_URL": "", "MINIBROKER_PORT": "7300"}, "minibroker://127.0.0.1:7300"),
        (SERVICE, URL),
        ({**SERVICE, "MINIBROKER_PORT": "udp://[fd00::1]:7272"}, URL),
    ],
)
def test_the_default_address(variables: dict[str, str], url: str) -> None:
    assert default_url(variables) == url


@pytest.mark.parametrize("port", ["http", "-1", "65536", "72.7", "7272 "])
def test_a_port_that_is_none_is_named(port: str) -> None:
    with pytest.raises(ValueError, match=f"MINIBROKER_PORT is '{port}'"):
        default_url({"MINIBROKER_PORT": port})


def test_an_address_as_a_url() -> None:
    assert url_of("::1", 1) == "minibroker://[::1]:1"
    assert url_of("broker", 2) == "minibroker://broker:2"


def test_only_a_link_is_passed_over() -> None:
    assert passed_over({"MINIBROKER_PORT": "7300"}) == ""
    assert "MINIBROKER_PORT=tcp://10.0.0.1:7272 is passed over" in passed_over(SERVICE)


def variables(command: click.Command, prefix: str) -> Iterator[str]:
    """Yield each variable that a command, or one below it, reads."""
    for option in command.params:
        if isinstance(option, click.Option):
            named = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
            own = f"{prefix}_{option.name}".upper().replace("-", "_")
            yield from named or ([own] if option.allow_from_autoenv else [])
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from variables(below, f"{prefix}_{name}".upper().replace("-", "_"))


def test_no_other_variable_has_a_name_of_that_family() -> None:
    """A Service may be called minibroker, or minibroker and one of our words."""
    names = set(variables(main, "MINIBROKER"))
    assert len(names) > len(COMMANDS)
    family = re.compile(r"_PORT$|_PORT_\d+_(TCP|UDP)|_SERVICE_(HOST|PORT)|_NAME$|_ENV_")
    assert {name for name in names if family.search(name)} == {"MINIBROKER_PORT"}


def flags(command: click.Command, context: click.Context) -> Iterator[tuple[str, str, str]]:
    """Yield each flag of a command, or one below it: the variable that help names, the prefix, and the flag."""
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            flag = max(option.opts, key=len).lstrip("-").replace("-", "_").upper()
            for variable in option.get_help_extra(context).get("envvars", ()):
                yield variable, str(context.auto_envvar_prefix), flag
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from flags(below, click.Context(below, parent=context, info_name=name))


def test_a_variable_has_the_name_of_its_flag() -> None:
    """Not that of an argument in Python, which has `for` and `type` of its own: MINIBROKER_PAUSE_FOR_."""
    context = click.Context(main, info_name="minibroker", auto_envvar_prefix="MINIBROKER")
    found = list(flags(main, context))
    assert len(found) > 200
    others = {
        variable: f"{prefix}_{flag}"
        for variable, prefix, flag in found
        if variable not in (f"{prefix}_{flag}", f"MINIBROKER_{flag}")
    }
    assert others == {"MINIBROKER_WORKER_HEALTH": "MINIBROKER_WORKER_HEALTH_PORT"}  # as `_PORT` is


@pytest.mark.parametrize(
    "variable", ["MINIBROKER_EXCHANGE_SET_TYPE", "MINIBROKER_EXCHANGE_SET_TYPE_"]
)
def test_a_variable_is_read_by_both_names_that_it_had(variable: str) -> None:
    done = typed("exchange", "set", "e", **{variable: "sometimes"})
    assert (done.returncode, "'sometimes' is not one of" in done.stderr) == (exits.USAGE, True)


def typed(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return warm.run(words, {**CLEAN, **env})


def test_ping_asks_the_port_that_serve_uses(tmp_path: Path) -> None:
    """By the same variables, by the same flags, and by a url."""
    server = BrokerServer(tmp_path / "data")
    try:
        port = str(server.port)
        for done in (
            typed("ping", MINIBROKER_PORT=port),
            typed("ping", MINIBROKER_PORT=port, MINIBROKER_HOST="0.0.0.0"),
            typed("ping", "--port", port, MINIBROKER_PORT="1"),
            typed("ping", "--port", port, "--host", "0.0.0.0"),
            typed("ping", "--url", server.url, MINIBROKER_PORT="1"),
            typed("stats", MINIBROKER_PORT=port),
        ):
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
    finally:
        server.close()


def test_a_server_in_a_cluster_starts_and_says_what_it_passed_over(tmp_path: Path) -> None:
    """With a port of its own it has nothing to say."""
    command = ("serve", "--data-dir", str(tmp_path / "data"), "--segment-bytes", "65537")
    assert typed(*command, **SERVICE).returncode == 2  # of the segments
    done = typed("config", "--json", **SERVICE)
    assert json.loads(done.stdout)["port"]["value"] == "7272"
    assert "tcp://10.0.0.1:7272 is passed over" in done.stderr
    server = BrokerServer(tmp_path / "data", env=SERVICE)  # with --port
    server.close()
    assert "environment_ignored" not in server.output


def test_the_event_of_a_server_that_takes_its_default_port(tmp_path: Path) -> None:
    """The default port may be taken here: the event stands before that."""
    file = tmp_path / "data"
    file.mkdir()
    (file / "mine").write_text("keeps the server from starting")
    done = typed("serve", "--data-dir", str(file), **SERVICE)
    assert done.returncode in (69, 73)
    assert " environment_ignored " in done.stderr
    assert "tcp://10.0.0.1:7272 is passed over" in done.stderr


def test_a_client_command_warns_unless_it_has_a_url() -> None:
    done = typed("ping", "--wait", "0.2s", **SERVICE)
    assert (done.returncode, "passed over" in done.stderr) == (69, True)
    assert URL in done.stderr
    done = typed(
        "ping", "--wait", "0.2s", **{**SERVICE, "MINIBROKER_URL": "minibroker://127.0.0.1:1"}
    )
    assert (done.returncode, "passed over" in done.stderr) == (69, False)


def test_an_application_is_warned_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in SERVICE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MINIBROKER_URL", raising=False)
    with caplog.at_level(logging.WARNING, "minibroker"):
        minibroker.connect()
    assert "tcp://10.0.0.1:7272 is passed over" in caplog.text
    monkeypatch.setenv("MINIBROKER_PORT", "none")
    with pytest.raises(ValueError, match="MINIBROKER_PORT is 'none'"):
        minibroker.connect()


@pytest.mark.parametrize(
    ("assigned", "flags"), [((), "serve"), (("PORT=7300",), "serve --port 7300")]
)
def test_make_serve_obeys_the_variables_of_serve(assigned: tuple[str, ...], flags: str) -> None:
    """It sets no flag that nobody asked for."""
    env = {name: value for name, value in CLEAN.items() if name != "PORT" and "MAKE" not in name}
    command = ["make", "--dry-run", "--assume-old=.venv/.serve-ready", "serve", *assigned]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.splitlines()[-1].split("minibroker ", 1)[1].strip() == flags
