"""examples/moving/ against a real Redis: what it prints, `minibroker import` takes. Skipped without one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typing_commands import output, values

from support.broker import BrokerServer
from support.processes import lasts
from support.source import ROOT

redis = pytest.importorskip(
    "redis", reason="redis-py is not installed: pip install minibroker[peers]"
)
SERVER = shutil.which("redis-server")
pytestmark = pytest.mark.skipif(SERVER is None, reason="redis-server is not installed")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    """A client of a Redis of our own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert SERVER is not None
    words = [
        SERVER,
        "--port",
        str(port),
        "--dir",
        str(tmp_path),
        "--save",
        "",
        "--bind",
        "127.0.0.1",
    ]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        client = redis.Redis(port=port)
        try:
            while not _answers(client):
                assert lasts(process, 0.02)
            yield client
        finally:
            client.close()
            process.kill()


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def script(client: Any, name: str, *words: str) -> str:
    """Return what a script prints."""
    port = client.connection_pool.connection_kwargs["port"]
    command = [
        sys.executable,
        str(ROOT / "examples/moving" / name),
        f"redis://127.0.0.1:{port}/0",
        *words,
    ]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ
    ).stdout


def test_a_list_of_redis_is_imported_in_its_order(client: Any, broker_server: BrokerServer) -> None:
    bodies = [b"%d" % n for n in range(2_500)] + [b"\xff\x00", b'{"a": "\xc3\xa9"}', b"two\nlines"]
    client.rpush("first", *bodies)
    client.lpush("last", *bodies)
    one = script(client, "redis_list.py", "first")
    assert one == script(client, "redis_list.py", "last", "--oldest-last")
    output(broker_server, "import", "jobs", stdin=one)
    found = values(broker_server, "peek", "jobs", "--count", "10000")
    assert [each["body"].encode() for each in found[:-3]] == bodies[:-3]
    assert found[-3]["body_base64"] == "/wA="
    assert [each["body"].encode() for each in found[-2:]] == bodies[-2:]
    assert client.llen("first") == len(bodies)


def test_of_a_stream_of_redis_comes_what_its_group_has_not_acked(client: Any) -> None:
    ids = [client.xadd("jobs", {"data": f"{n}", "more": "x"}) for n in range(6)]
    client.xgroup_create("jobs", "g", "0")
    client.xreadgroup("g", "me", {"jobs": ">"}, 3)
    client.xack("jobs", "g", ids[0])
    client.xdel("jobs", ids[2])
    lines = script(client, "redis_stream.py", "jobs", "g", "--field", "data").splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["body"] for each in found] == ["1", "3", "4", "5"]
    assert found[0]["headers"] == {"redis-id": ids[1].decode()}
    whole = script(client, "redis_stream.py", "jobs").splitlines()
    assert [json.loads(json.loads(line)["body"])["data"] for line in whole] == [
        "0",
        "1",
        "3",
        "4",
        "5",
    ]
