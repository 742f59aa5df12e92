"""The worker's unit and its service of the compose file, read by the tools they are for, and run as they stand."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import minibroker.sync
from minibrokerd.process.exits import EXITS, USAGE
from support.broker import BrokerServer
from support.processes import DEADLINE_S, TETHER, look_until
from support.source import ROOT

DEPLOY = ROOT / "examples" / "deploy"
UNIT_PATH = DEPLOY / "minibroker-worker.service"
COMPOSE_PATH = DEPLOY / "compose.yaml"
PROGRAM = Path(sys.executable).with_name("minibroker")
HARD_END_S = 10.0  # what cannot be stopped is left so long after the drain

Run = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Start `minibroker` with these arguments beside the example app; what it prints is in the file `output`."""
    started: list[subprocess.Popen[bytes]] = []

    def start(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        app = tmp_path / "app"
        shutil.copytree(DEPLOY / "app", app, ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, "-I", "-S", "-c", TETHER, str(PROGRAM), *arguments]
        with (tmp_path / "output").open("wb") as output:
            process = subprocess.Popen(
                command,
                env={"PATH": os.environ["PATH"], **environment},
                cwd=app,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def works(process: subprocess.Popen[bytes], server: BrokerServer, output: Path) -> None:
    """Publish a message, and wait until the worker has done its work."""
    with minibroker.sync.connect(server.url) as broker:
        broker.queue("welcomes").publish({"to": "bob"})
    look_until(lambda: b"welcome bob" in output.read_bytes(), process, "it has worked")


# -- systemd --------------------------------------------------------------------------------------


@pytest.fixture
def unit() -> configparser.SectionProxy:
    """The section [Service]."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT_PATH)
    return parser["Service"]


def test_the_unit_of_the_worker_starts_works_reloads_and_stops(
    unit: configparser.SectionProxy, tmp_path: Path, run: Run, broker_server: BrokerServer
) -> None:
    """ExecStart, ExecReload and a stop, as the manager does them."""
    program, *arguments = shlex.split(unit["ExecStart"])
    assert (Path(program).name, arguments[0], unit["Type"]) == ("minibroker", "worker", "notify")
    assert Path(program).is_relative_to(unit["WorkingDirectory"])
    name, _, default = unit["Environment"].partition("=")
    assert (name, default) == ("MINIBROKER_URL", "minibroker://127.0.0.1:7272")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_S)
        watchdog = str(int(unit["WatchdogSec"]) * 1_000_000)
        environment = {name: broker_server.url, "NOTIFY_SOCKET": manager.getsockname()}
        process = run(arguments, environment | {"WATCHDOG_USEC": watchdog})

        def hears(wanted: bytes) -> None:
            while wanted not in manager.recv(4_096):
                pass

        hears(b"READY=1")
        hears(b"WATCHDOG=1")
        works(process, broker_server, tmp_path / "output")
        word, flag, target = shlex.split(unit["ExecReload"])
        assert (word, flag, target) == ("kill", "-HUP", "$MAINPID")
        process.send_signal(signal.SIGHUP)
        hears(b"RELOADING=1")
        hears(b"READY=1")
        process.terminate()
        hears(b"STOPPING=1")
        assert process.wait(DEADLINE_S) == 0


def test_the_unit_waits_for_the_drain_and_starts_again_where_that_can_help(
    unit: configparser.SectionProxy,
) -> None:
    """A wrong command line or app is for a person; a process that was killed for its memory is not."""
    arguments = shlex.split(unit["ExecStart"])
    drain_s = float(arguments[arguments.index("--drain-timeout") + 1])
    assert float(unit["TimeoutStopSec"]) > drain_s + HARD_END_S
    assert int(unit["RestartPreventExitStatus"]) == USAGE
    assert "app" in next(row.meaning for row in EXITS if row.code == USAGE)
    assert (unit["Restart"], unit["OOMPolicy"], unit["KillMode"]) == (
        "on-failure",
        "continue",
        "mixed",
    )


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_understands_the_unit_of_the_worker(
    unit: configparser.SectionProxy, tmp_path: Path
) -> None:
    """Every setting and every value; the program is the one that is installed here."""
    program = shlex.split(unit["ExecStart"])[0]
    copy = tmp_path / UNIT_PATH.name
    copy.write_text(UNIT_PATH.read_text("utf-8").replace(program, str(PROGRAM)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- compose --------------------------------------------------------------------------------------


def service(name: str) -> dict[str, Any]:
    """Return a service of the compose file."""
    found: dict[str, Any] = YAML(typ="safe").load(COMPOSE_PATH)["services"][name]
    return found


def test_the_compose_file_is_one_by_the_schema_of_compose() -> None:
    """Every key and the type of every value, in both services."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(COMPOSE_PATH)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_compose_starts_a_worker_that_works_is_healthy_and_stops(
    tmp_path: Path, run: Run, broker_server: BrokerServer
) -> None:
    """The command, the variables and the health check, with the file of the check in another place."""
    worker = service("worker")
    assert worker["environment"] == {"MINIBROKER_URL": "minibroker://minibroker:7272"}
    health = str(tmp_path / "health")
    arguments = [health if each == "/tmp/health" else each for each in worker["command"]]
    kind, program, *check = worker["healthcheck"]["test"]
    assert (kind, program, check[-1]) == ("CMD", "minibroker", "/tmp/health")
    environment = {"MINIBROKER_URL": broker_server.url}

    def is_healthy() -> bool:
        asked = subprocess.run(
            [str(PROGRAM), *check[:-1], health], capture_output=True, env=environment, check=False
        )
        return asked.returncode == 0

    assert not is_healthy()
    process = run(arguments, environment)
    look_until(is_healthy, process, "it is healthy")
    works(process, broker_server, tmp_path / "output")
    process.terminate()
    assert process.wait(DEADLINE_S) == 0
    lines = (tmp_path / "output").read_text("utf-8").splitlines()
    assert [json.loads(line)["event"] for line in lines if line.startswith("{")][-1] == (
        "workers_stopped"
    )


def test_compose_gives_the_worker_what_it_needs_and_no_more() -> None:
    """The app is where it runs and cannot be changed, its health file has a place, and a stop has time enough."""
    worker = service("worker")
    assert worker["volumes"] == [f"./app:{worker['working_dir']}:ro"]
    assert worker["read_only"] is True
    assert "/tmp" in worker["tmpfs"]
    flags = worker["command"]
    drain_s = float(flags[flags.index("--drain-timeout") + 1])
    assert float(worker["stop_grace_period"].removesuffix("s")) > drain_s + HARD_END_S
