"""Retained logs and the offline tools: `log salvage` and `log restore` keep them, and no start throws one away."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typing_commands import output, typed, values

from minibroker.contract.limits import MAX_OFFSET
from minibrokerd.process import exits
from minibrokerd.rescue.restoring import RAISED_OFFSETS
from support.broker import BrokerServer


def offline(path: Path, *words: str, code: int = 0) -> Any:
    """Return what a command says of a data directory in JSON."""
    done = typed("log", *words, "--data-dir", str(path), "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BrokerServer]:
    """A server with a retained log of five messages, a to e, all of them in its files."""
    server = BrokerServer(tmp_path / "data")
    try:
        output(server, "queue", "set", "events", "kind=log")
        output(server, "publish", "events", stdin="a\nb\n")
        assert output(server, "read", "events") == [
            "a",
            "b",
        ]  # and so they are a frame of their own
        output(server, "publish", "events", stdin="c\nd\ne\n")
        assert output(server, "read", "events") == list("abcde")
        yield server
    finally:
        server.close()


def spoil(data: Path, says: bytes) -> None:
    """Spoil all records of a stopped server's log that have these bytes."""
    for path in data.glob("segment-*.log"):
        content = path.read_bytes()
        assert says in content
        path.write_bytes(content.replace(says, bytes(len(says))))


def number_of(data: Path) -> int:
    """Return the number of the one retained log there is."""
    (path,) = (data / "retained").iterdir()
    return int(path.name)


@pytest.mark.parametrize("lost", ["nothing", "its name", "a frame of its file"])
def test_a_salvage_keeps_retained_logs(server: BrokerServer, lost: str, tmp_path: Path) -> None:
    """What can be read of their files; and what is published from then on is not taken for what is there."""
    assert server.stop() == 0
    data, out = server.data_dir, tmp_path / "out"
    name = "events"
    if lost == "its name":
        spoil(data, b"events")
        name = f"salvaged-{number_of(data)}"
    elif lost == "a frame of its file":
        (file,) = (data / "retained").rglob("*.segment")
        content = bytearray(file.read_bytes())
        content[70] ^= 1
        file.write_bytes(content)
    said = offline(data, "salvage", "--out", str(out))
    found = offline(out, "check", code=exits.DAMAGED if lost == "a frame of its file" else 0)
    (row,) = said["retained"]
    kept = found["retained"][0]["messages"]
    assert (row["number"], row["messages"]) == (number_of(data), kept)
    assert kept == (3 if lost == "a frame of its file" else 5)
    server.data_dir = out
    server.restart()
    bodies = output(server, "read", name)
    assert bodies == list("abcde")[5 - kept :]
    output(server, "publish", name, "new")
    assert output(server, "read", name) == [*bodies, "new"]


def test_a_log_that_was_deleted_is_not_salvaged(server: BrokerServer, tmp_path: Path) -> None:
    number = number_of(server.data_dir)
    shutil.copytree(server.data_dir / "retained", tmp_path / "before")
    output(server, "queue", "delete", "events", "--yes", "--force")
    assert server.stop() == 0
    shutil.copytree(tmp_path / "before" / str(number), server.data_dir / "retained" / str(number))
    said = offline(server.data_dir, "salvage", "--out", str(tmp_path / "out"))
    assert said["retained"] == []
    assert not list((tmp_path / "out").rglob("*.segment"))


def test_a_start_keeps_aside_what_it_does_not_know(server: BrokerServer, tmp_path: Path) -> None:
    """And deletes what it knows to be of a log that was deleted."""
    retained = server.data_dir / "retained"
    number = number_of(server.data_dir)
    shutil.copytree(retained, tmp_path / "before")
    output(server, "queue", "delete", "events", "--yes", "--force")
    assert server.stop() == 0
    for each in (number, number + 1_000):
        shutil.copytree(tmp_path / "before" / str(number), retained / str(each), dirs_exist_ok=True)
    server.restart()
    server.prints("retained_aside")
    aside = f"{number + 1_000}.aside"
    assert [path.name for path in retained.iterdir()] == [aside]
    assert list((retained / aside).glob("*.segment"))
    shutil.copytree(tmp_path / "before" / str(number), retained / str(number + 1_000))
    server.restart()
    names = {aside, f"{aside}-2"}
    assert {path.name for path in retained.iterdir()} == names
    found = offline(server.data_dir, "check")
    assert set(found["retained_aside"]) == {f"retained/{name}" for name in names}
    told = typed("log", "check", "--data-dir", str(server.data_dir))
    assert aside in told.stderr


def test_a_restore_leaves_room_for_offsets(server: BrokerServer) -> None:
    """A log has 2^46 of them, and groups their positions above that: far more restores than anybody does."""
    output(server, "group", "set", "events", "audit", "--start", "first")
    assert server.stop() == 0
    for _ in range(5):
        offline(server.data_dir, "restore")
    server.restart()
    output(server, "publish", "events", "f")
    *_, last = values(server, "read", "events")
    assert (last["body"], last["offset"] >= 5 * RAISED_OFFSETS) == ("f", True)
    assert last["offset"] < MAX_OFFSET // 2
    consume = "consume", "events@audit", "--ack", "--count", "6"
    assert output(server, *consume) == list("abcdef")
    output(server, "group", "seek", "events", "audit", "--start", "first")
    assert output(server, *consume) == list("abcdef")
