"""`log check`, `log salvage` and `log stats`: what an operator types on the bad day, on real files and servers."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from typing_commands import output, typed, values

import minibroker
from minibrokerd.cli.main import main
from minibrokerd.process import exits
from support.broker import BrokerServer, StartBroker

SMALL = ("--segment-bytes", "65536")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a broker left that was killed after it had confirmed three messages in each of two queues."""
    server = BrokerServer(tmp_path_factory.mktemp("written") / "data", *SMALL)
    try:
        asyncio.run(_publish(server.url))
        server.kill()
    finally:
        server.close()
    return server.data_dir


async def _publish(url: str) -> None:
    async with minibroker.connect(url) as broker:
        for body in ("one", "two", "three"):
            for queue in ("emails", "reports"):
                await broker.queue(queue).publish(body)


@pytest.fixture
def stopped(written: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "stopped"))


def segment_of(data_dir: Path) -> Path:
    """Return the only segment file."""
    (path,) = data_dir.glob("segment-*.log")
    return path


def spoil(data_dir: Path, text: bytes) -> int:
    """Flip a bit of the first place where `text` stands; return where."""
    path = segment_of(data_dir)
    data = bytearray(path.read_bytes())
    at = data.index(text)
    data[at] ^= 1
    path.write_bytes(data)
    return at


def report(data_dir: Path, code: int) -> dict[str, Any]:
    """Return what `log check --json` prints; it must end with `code`."""
    done = typed("log", "check", "--data-dir", str(data_dir), "--json")
    assert done.returncode == code, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def test_a_check_beside_a_running_server_says_that_it_moves(start_broker: StartBroker) -> None:
    """Whole, and who writes to it; afterwards closed."""
    server = start_broker(*SMALL)
    output(server, "publish", "emails", "one")
    done = typed("log", "check", env={"MINIBROKER_DATA_DIR": str(server.data_dir)})
    assert done.returncode == 0, done.stderr
    assert f"process {server.pid} writes to it, and its last segment moves" in done.stdout
    assert report(server.data_dir, 0)["server_pid"] == server.pid
    assert server.stop() == 0
    after = report(server.data_dir, 0)
    assert (after["closed"], after["server_pid"]) == (True, None)


def test_a_check_of_a_copy_names_file_place_and_messages(stopped: Path, tmp_path: Path) -> None:
    """Without the lock file, too, and nothing in it changes."""
    copy = tmp_path / "copy"
    shutil.copytree(stopped, copy)
    (copy / "lock").unlink()
    at = spoil(copy, b"two")
    (copy / "notes.txt").touch()
    before = {path: path.read_bytes() for path in copy.iterdir()}
    found = report(copy, exits.DAMAGED)
    (damage,) = found["damages"]
    assert damage["file"] == segment_of(copy).name
    assert damage["start"] < at < damage["end"]
    assert found["foreign"] == ["notes.txt"]
    emails, reports = found["queues"]
    assert (emails["name"], emails["lost"], emails["live"]) == ("emails", [[1, 1, 1]], 2)
    assert (reports["name"], reports["lost"], reports["again"]) == ("reports", [], 1)
    assert {path: path.read_bytes() for path in copy.iterdir()} == before
    told = typed("log", "check", "--data-dir", str(copy))
    assert "the log is damaged in 1 place" in told.stdout
    assert "1-1" in told.stdout


def test_a_torn_append_is_no_damage(stopped: Path) -> None:
    """What a crash leaves is told, and ends with 0."""
    data = bytearray(segment_of(stopped).read_bytes())
    end = len(data.rstrip(b"\0"))
    data[end + 16 : end + 24] = b"half of "
    segment_of(stopped).write_bytes(data)
    found = report(stopped, 0)
    assert (found["whole"], found["damages"], len(found["torn"])) == (True, [], 1)
    told = typed("log", "check", "--data-dir", str(stopped))
    assert "up to a torn last append" in told.stdout


def test_serve_names_the_way_out_and_serves_what_was_salvaged(
    stopped: Path, start_broker: StartBroker, tmp_path: Path
) -> None:
    """The bad day from its start to its end: refused, checked, salvaged, served; new ids are new."""
    spoil(stopped, b"two")
    refused = typed("serve", "--data-dir", str(stopped), "--port", "0")
    assert refused.returncode == exits.DAMAGED
    assert "minibroker log check" in refused.stderr
    assert "minibroker log salvage" in refused.stderr
    out = tmp_path / "salvaged"
    done = typed("log", "salvage", "--data-dir", str(stopped), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert f"minibroker serve --data-dir {out}" in done.stderr
    assert report(out, 0)["closed"]
    server = start_broker(*SMALL, data_dir=out)
    bodies = [line["body"] for line in values(server, "peek", "emails", "--count", "9")]
    assert bodies == ["one", "three"]
    (published,) = output(server, "publish", "emails", "four")
    assert int(published.split()[0].partition("-")[2]) > 2**20


def test_a_salvage_of_a_served_directory_is_refused(start_broker: StartBroker) -> None:
    """It would miss what is confirmed meanwhile."""
    server = start_broker(*SMALL)
    done = typed(
        "log", "salvage", "--data-dir", str(server.data_dir), "--out", f"{server.data_dir}-2"
    )
    assert done.returncode == exits.LOCKED
    assert f"process {server.pid}" in done.stderr


def test_a_salvage_into_itself_is_a_refusal(stopped: Path) -> None:
    """The original is never written to."""
    out = stopped / "inside"
    done = typed("log", "salvage", "--data-dir", str(stopped), "--out", str(out))
    assert done.returncode == exits.NOT_WRITABLE
    assert "--out" in done.stderr


def test_stats_name_what_pins_a_segment(stopped: Path) -> None:
    """Counts, the oldest message with its queue and age, and the bound."""
    done = typed("log", "stats", "--data-dir", str(stopped), "--json")
    row, totals = (json.loads(line) for line in done.stdout.splitlines())
    assert (row["live_messages"], row["pin"]["what"], row["pin"]["of"]) == (
        6,
        "message 1-0",
        "emails",
    )
    assert totals["bound_bytes"] == 2 * totals["live_bytes"] + 2 * 65536
    told = typed("log", "stats", "--data-dir", str(stopped))
    assert "message 1-0 of emails" in told.stdout
    assert "s old" in told.stdout


@pytest.mark.parametrize("command", ["check", "stats", "salvage", "dump"])
@pytest.mark.parametrize("what", ["missing", "empty", "foreign", "unreadable"])
def test_what_is_no_log_is_told(tmp_path: Path, command: str, what: str) -> None:
    """Each ends with 73 and names the directory and the next step; nothing is made."""
    data_dir = tmp_path / "data"
    if what != "missing":
        data_dir.mkdir()
    if what == "foreign":
        (data_dir / "notes.txt").touch()
    if what == "unreadable":  # a directory of that name: the user that runs this may be root
        (data_dir / "segment-0000000001-00001.log").mkdir()
    before = sorted(tmp_path.rglob("*"))
    words = ["log", command, "--data-dir", str(data_dir)]
    words += ["--out", str(tmp_path / "out")] if command == "salvage" else []
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.stdout) == (exits.NOT_WRITABLE, ""), done.stderr
    assert str(data_dir) in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_log_has_no_stats(stopped: Path) -> None:
    """A replay of half a log would show what is not true."""
    spoil(stopped, b"two")
    done = typed("log", "stats", "--data-dir", str(stopped))
    assert (done.returncode, done.stdout) == (exits.DAMAGED, "")
