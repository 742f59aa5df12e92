"""`minibroker backup` and `minibroker restore`, typed beside a server that runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from typing_commands import typed

import minibroker
from minibrokerd.cli.main import main
from minibrokerd.process import exits
from support.broker import StartBroker

SMALL = ("--segment-bytes", "65536")


def test_back_up_go_on_and_restore(start_broker: StartBroker, tmp_path: Path) -> None:
    server, place, target = start_broker(*SMALL), str(tmp_path / "b"), tmp_path / "r"
    where = ("--data-dir", str(server.data_dir))
    asyncio.run(_work(server.url))
    first = json.loads(typed("backup", place, *where, "--json").stdout)
    asyncio.run(_work(server.url))
    done = typed("backup", place, *where)
    assert (done.returncode, done.stderr) == (exits.DONE, "")
    assert "back-up 2" in done.stdout
    listed = [
        json.loads(line) for line in typed("backup", place, "--list", "--json").stdout.splitlines()
    ]
    assert [each["number"] for each in listed] == [1, 2]
    assert listed[1]["batch"] > listed[0]["batch"] == first["batch"]
    judged = [
        json.loads(line)
        for line in typed("backup", place, "--verify", "--json").stdout.splitlines()
    ]
    assert [each["whole"] for each in judged] == [True, True]
    restored = typed("restore", place, "--data-dir", str(target), "--number", "1", "--json")
    assert json.loads(restored.stdout)["epoch"] > 65_536
    again = start_broker(*SMALL, data_dir=target)
    assert asyncio.run(_bodies(again.url)) == [b"two"]


async def _work(url: str) -> None:
    async with minibroker.connect(url) as broker:
        await broker.queue("q").publish_many([b"one", b"two"])
        (message,) = await broker.queue("q").receive()
        await message.ack(confirmed=True)


async def _bodies(url: str) -> list[bytes]:
    async with minibroker.connect(url) as broker:
        return [each.raw for each in await broker.queue("q").peek()]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("backup b --data-dir {data}/gone", exits.NOT_WRITABLE, "no data directory"),
        ("backup {data}/b --data-dir {data}", exits.USAGE, "in the data directory"),
        ("backup {data} --data-dir {data}", exits.USAGE, "in the data directory"),
        ("backup {empty} --verify", exits.DAMAGED, "has no back-up"),
        ("restore {empty} --data-dir new", exits.USAGE, "no back-up"),
        ("restore {empty} --data-dir {data}", exits.NOT_WRITABLE, "not empty"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(
    words: str, code: int, says: str, tmp_path: Path
) -> None:
    data, empty = tmp_path / "data", tmp_path / "empty"
    for made in (data, empty):
        made.mkdir()
    (data / "state").write_text("running 0")
    there = sorted(tmp_path.rglob("*"))
    words = words.format(data=data, empty=empty).replace("new", str(tmp_path / "new"))
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == code, done.output
    assert says in " ".join(done.output.split())
    assert sorted(tmp_path.rglob("*")) == there
