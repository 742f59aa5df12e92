"""What is copied to run it elsewhere: the image's own command line, the compose file and the systemd unit.

No container engine is needed: what the image would run is run here, with the image's environment and nothing else.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from minibroker.contract import limits
from minibrokerd.http.options import DEFAULT_PORT
from minibrokerd.process.exits import (
    AGAIN,
    DEPOSED,
    DONE,
    DRAIN,
    EXITS,
    FAULT,
    INTERRUPTED,
    LOG_FAILED,
    NOT_YET,
    PIPE,
    REFUSED,
)
from support.broker import BrokerServer
from support.processes import DEADLINE_S, look_until
from support.source import ROOT

DEPLOY = ROOT / "examples" / "deploy"
HOME = Path(sys.executable).parent  # where the program `minibroker` is
WORTH_ANOTHER_START = {
    AGAIN, NOT_YET, DONE, REFUSED, LOG_FAILED, DRAIN, FAULT, DEPOSED, INTERRUPTED, PIPE,
}  # fmt: skip


# -- the image ------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile's last stage, with their arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]
    last = max(at for at, (word, _) in enumerate(found) if word == "FROM")
    return found[last:]


def argument(name: str) -> str:
    """Return the argument of an instruction that stands there once."""
    (found,) = (rest for word, rest in instructions() if word == name)
    return found


def image_environment() -> dict[str, str]:
    """Return the variables that the image sets."""
    rest = " ".join(rest for word, rest in instructions() if word == "ENV")
    return dict(pair.split("=", 1) for pair in shlex.split(rest))


def health_check() -> list[str]:
    """Return the command of the health check, in exec form."""
    command: list[str] = json.loads(argument("HEALTHCHECK").partition("CMD ")[2])
    return command


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def container(tmp_path: Path) -> dict[str, str]:
    """The environment in the container, but for where the data is and the port."""
    port = free_port()
    return {
        "PATH": f"{HOME}:/usr/bin:/bin",
        **image_environment(),
        "MINIBROKER_DATA_DIR": str(tmp_path / "data"),
        "MINIBROKER_PORT": str(port),  # which the health check goes by, too
        "MINIBROKER_HTTP": f"0.0.0.0:{free_port()}",
    }


@pytest.fixture
def image_process(
    container: Mapping[str, str], tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The process that `docker run` would start; what it prints is in the file `output`."""
    command = json.loads(argument("ENTRYPOINT")) + json.loads(argument("CMD"))
    assert shutil.which(command[0], path=container["PATH"]) == str(HOME / "minibroker")
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            command, env=container, cwd="/", stdout=output, stderr=subprocess.STDOUT
        )
    yield process
    process.kill()
    process.wait()


def is_ready(port: str) -> bool:
    """Whether the HTTP port says so; it opens a moment after that of the clients."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
            return bool(answer.read() == b"ready\n")
    except OSError:
        return False


def test_the_image_starts_is_healthy_and_stops(
    image_process: subprocess.Popen[bytes], container: Mapping[str, str], tmp_path: Path
) -> None:
    """Entry point, environment, health check and stop signal, as written in the Dockerfile."""

    def is_healthy() -> bool:
        done = subprocess.run(
            health_check(), env=container, cwd="/", capture_output=True, check=False
        )
        return done.returncode == 0

    look_until(is_healthy, image_process, "it is healthy")
    _, _, http = container["MINIBROKER_HTTP"].rpartition(":")
    look_until(lambda: is_ready(http), image_process, "its page answers")
    image_process.send_signal(signal.Signals[argument("STOPSIGNAL")])
    assert image_process.wait(DEADLINE_S) == 0
    assert "listening on 0.0.0.0:" in (tmp_path / "output").read_text()


def test_the_ports_of_the_image_are_those_of_the_program() -> None:
    """For clients, and for browsers and Prometheus."""
    ports = [str(limits.DEFAULT_PORT), str(DEFAULT_PORT)]
    assert argument("EXPOSE").split() == ports
    assert image_environment()["MINIBROKER_HTTP"] == f"0.0.0.0:{ports[1]}"


def test_the_image_gives_nothing_away() -> None:
    """No root, its data in a volume that its user owns, and a stop that is over before docker kills."""
    assert argument("USER") not in ("", "0", "root")
    assert argument("VOLUME") == image_environment()["MINIBROKER_DATA_DIR"]
    assert float(image_environment()["MINIBROKER_DRAIN_TIMEOUT"]) < 10
    run = " ".join(rest for word, rest in instructions() if word == "RUN")
    assert f"--uid {argument('USER')} " in run
    assert f"--mode 700 --owner minibroker {argument('VOLUME')}" in run


# -- compose --------------------------------------------------------------------------------------

COMPOSE = (DEPLOY / "compose.yaml").read_text("utf-8")
BROKER = COMPOSE.partition("\n  worker:\n")[0]  # the worker's service: test_deploy_worker.py


def compose(name: str) -> str:
    """Return the value of a line of the broker's service; it holds no structure that needs more."""
    (found,) = re.findall(rf"^ +{name}: ([^#\n]+)", BROKER, re.MULTILINE)
    return str(found).strip()


def test_compose_runs_a_command_line_that_is_accepted(tmp_path: Path) -> None:
    """The flags after `serve`, as they stand there."""
    command = json.loads(compose("command"))
    assert command[0] == "serve"
    server = BrokerServer(tmp_path / "data", *command[1:])
    try:
        assert server.stop() == 0
    finally:
        server.close()


def test_compose_says_what_the_dockerfile_says() -> None:
    """The same health check, a volume with a name for /data, loopback, and time enough to drain."""
    assert json.loads(compose("test")) == ["CMD", *health_check()]
    assert f"minibroker:{argument('VOLUME')}" in COMPOSE
    assert re.search(r"^volumes:\n  minibroker:$", COMPOSE, re.MULTILINE)
    assert '- "127.0.0.1:7272:7272"' in COMPOSE
    flags = json.loads(compose("command"))
    drain_s = float(flags[flags.index("--drain-timeout") + 1])
    assert float(compose("stop_grace_period").removesuffix("s")) > drain_s
    assert "\t" not in COMPOSE


# -- systemd --------------------------------------------------------------------------------------

UNIT_PATH = DEPLOY / "minibroker.service"


@pytest.fixture
def unit() -> configparser.SectionProxy:
    """The section [Service]."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT_PATH)
    return parser["Service"]


def test_the_unit_starts_a_command_line_that_is_accepted(
    unit: configparser.SectionProxy, tmp_path: Path
) -> None:
    """The same flags, on another directory; and the manager hears READY, or the unit would time out."""
    program, command, *flags = shlex.split(unit["ExecStart"])
    assert (Path(program).name, command, unit["Type"]) == ("minibroker", "serve", "notify")
    at = flags.index("--data-dir")
    assert flags[at + 1] == f"/var/lib/{unit['StateDirectory']}"
    del flags[at : at + 2]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_S)
        env = {"NOTIFY_SOCKET": manager.getsockname()}
        server = BrokerServer(tmp_path / "data", *flags, env=env)
        try:
            while b"READY=1" not in manager.recv(4_096):
                pass
            assert server.stop() == 0
        finally:
            server.close()
    drain_s = float(flags[flags.index("--drain-timeout") + 1])
    assert float(unit["TimeoutStopSec"]) > drain_s


def test_the_unit_starts_again_where_that_can_help(unit: configparser.SectionProxy) -> None:
    """A failed disk, a slow stop, a bug; for every other code a person has to look."""
    hopeless = {row.code for row in EXITS} - WORTH_ANOTHER_START
    assert unit["Restart"] == "on-failure"
    assert {int(code) for code in unit["RestartPreventExitStatus"].split()} == hopeless


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_understands_the_unit(unit: configparser.SectionProxy, tmp_path: Path) -> None:
    """Every setting and every value; the program is the one that is installed here."""
    program = shlex.split(unit["ExecStart"])[0]
    copy = tmp_path / "minibroker.service"
    copy.write_text(UNIT_PATH.read_text("utf-8").replace(program, str(HOME / "minibroker")))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
