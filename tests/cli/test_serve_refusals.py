"""What `serve` refuses, and how it says so: each mistake has its words and its exit code, and loses nothing."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner

import minibroker
from minibrokerd.cli.main import main
from minibrokerd.log import format as layout
from minibrokerd.log.format import Header, Kind, Origin, SegmentInfo
from minibrokerd.process import exits
from minibrokerd.process.exits import EXITS
from support import warm
from support.broker import COMMAND, BrokerServer, with_files
from support.processes import look_until

SMALL = ("--segment-bytes", "65536")  # a start makes four segments
UNROUTED = "203.0.113.7"  # of the range for documentation: no machine has it
LOW_LIMIT = 96
# prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE): who is not root has it neither, and may not give it up.
BOUND = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
PATIENCE_S = 20.0


def serve(*flags: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `serve` to an end that is expected to come soon; it prints no banner and no traceback."""
    done = warm.run(["serve", "--port", "0", *SMALL, *flags], {**os.environ, **(env or {})})
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check the code, that it is one of the table, and that one event says why and what to do."""
    assert done.returncode == code, done.stderr
    assert code in {row.code for row in EXITS}
    (line,) = done.stderr.splitlines()
    assert f" start_refused code={code} " in line
    assert not [word for word in words if word not in line], line


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[BrokerServer]:
    """A stopped broker with one message in q."""
    server = BrokerServer(tmp_path / "data", *SMALL)
    asyncio.run(publish(server.url, b"kept"))
    assert server.stop() == 0
    yield server
    server.close()


async def publish(url: str, body: bytes) -> None:
    """Publish one message to q."""
    async with minibroker.connect(url) as broker:
        await broker.queue("q").publish(body)


async def bodies(url: str) -> list[bytes]:
    """Return what lies in q."""
    async with minibroker.connect(url) as broker:
        return [peeked.raw for peeked in await broker.queue("q").peek()]


def is_whole(server: BrokerServer) -> None:
    """Nothing was lost: the broker starts, and the message is there."""
    server.restart()
    assert asyncio.run(bodies(server.url)) == [b"kept"]


# -- the address ----------------------------------------------------------------------------------


def test_a_taken_port(stopped: BrokerServer) -> None:
    """It is told before the log is touched."""
    files = snapshot(stopped.data_dir)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = serve("--data-dir", str(stopped.data_dir), "--port", port)
    refused(done, exits.UNREACHABLE, f"127.0.0.1:{port}", "another program listens", "--port")
    assert snapshot(stopped.data_dir) == files
    is_whole(stopped)


def test_a_host_that_nobody_knows(tmp_path: Path) -> None:
    """`.invalid` is reserved for this."""
    flags = ("--host", "broker.invalid", "--insecure", "--data-dir", str(tmp_path / "data"))
    refused(serve(*flags), exits.UNREACHABLE, "'broker.invalid'", "correct --host")
    assert not (tmp_path / "data").exists()


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    """A typing error, or an interface that is not up."""
    flags = ("--host", UNROUTED, "--insecure", "--data-dir", str(tmp_path / "data"))
    refused(serve(*flags), exits.UNREACHABLE, UNROUTED, "no such address", "--host")
    assert not (tmp_path / "data").exists()


def test_one_port_for_all_addresses_of_a_name(tmp_path: Path) -> None:
    """`localhost` may be two addresses; the port that was free for the first one holds for both."""
    server = BrokerServer(tmp_path / "data", "--host", "localhost", *SMALL)
    try:
        for found in socket.getaddrinfo("localhost", server.port, type=socket.SOCK_STREAM):
            try:
                socket.create_connection((str(found[4][0]), server.port), PATIENCE_S).close()
            except OSError:
                assert found[0] == socket.AF_INET6, "a machine without IPv6 may still name ::1"
    finally:
        server.close()


# -- the data directory ---------------------------------------------------------------------------


def snapshot(directory: Path) -> dict[str, bytes]:
    """Return all files with what stands in them; the lock's pid apart."""
    return {each.name: each.read_bytes() for each in directory.iterdir() if each.name != "lock"}


def test_a_directory_that_another_server_holds(stopped: BrokerServer) -> None:
    """The one that runs goes on."""
    stopped.restart()
    done = serve("--data-dir", str(stopped.data_dir))
    refused(
        done, exits.LOCKED, str(stopped.data_dir), f"process {stopped.pid}", "another directory"
    )
    assert asyncio.run(bodies(stopped.url)) == [b"kept"]


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    """It cannot be made."""
    (tmp_path / "file").write_text("mine")
    done = serve("--data-dir", str(tmp_path / "file" / "data"))
    refused(done, exits.NOT_WRITABLE, str(tmp_path / "file"), "check owner, mode and mount")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_in_its_place(tmp_path: Path) -> None:
    """The command line knows that already."""
    (tmp_path / "data").write_text("mine")
    done = serve("--data-dir", str(tmp_path / "data"))
    assert done.returncode == exits.USAGE
    assert "'--data-dir' (env var: 'MINIBROKER_DATA_DIR')" in done.stderr
    assert "is a file" in done.stderr
    assert (tmp_path / "data").read_text() == "mine"


def test_a_directory_without_rights(tmp_path: Path) -> None:
    """The owner is another, or the mode; of root that is true without its right to write everywhere."""
    (tmp_path / "data").mkdir(0o500)
    words = ["serve", "--port", "0", *SMALL, "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(
        [sys.executable, "-c", BOUND, *COMMAND, *words], capture_output=True, text=True, check=False
    )
    refused(done, exits.NOT_WRITABLE, "check owner")


def test_a_directory_in_its_files_places(stopped: BrokerServer) -> None:
    """What cannot be written although the directory can: seen by root, too."""
    (stopped.data_dir / "state").unlink()
    (stopped.data_dir / "state").mkdir()
    done = serve("--data-dir", str(stopped.data_dir))
    refused(done, exits.NOT_WRITABLE, str(stopped.data_dir), "check the disk")
    (stopped.data_dir / "state").rmdir()
    is_whole(stopped)


def test_a_directory_of_other_files(tmp_path: Path) -> None:
    """A home directory is not filled with segments."""
    (tmp_path / "letter.txt").write_text("mine")
    done = serve("--data-dir", str(tmp_path))
    refused(done, exits.NOT_WRITABLE, "letter.txt", "choose an empty directory")
    assert [each.name for each in tmp_path.iterdir()] == ["letter.txt"]


def test_a_damaged_log(stopped: BrokerServer) -> None:
    """File, offset and what to do; the bytes stay as they are, and the right ones are accepted again."""
    (segment,) = stopped.data_dir.glob("segment-*.log")
    data = segment.read_bytes()
    at = data.index(b"kept")
    segment.write_bytes(data[:at] + b"lost" + data[at + 4 :])
    files = snapshot(stopped.data_dir)
    done = serve("--data-dir", str(stopped.data_dir))
    refused(done, exits.DAMAGED, str(segment), "at byte", "copy the data directory")
    assert snapshot(stopped.data_dir) == files
    segment.write_bytes(data)
    is_whole(stopped)


def test_a_newer_format(tmp_path: Path) -> None:
    """Start the newer release; this one changes nothing."""
    body = layout.encode_body([SegmentInfo(99, 65_536, 1, 0, 0).record()])
    sizes = (body.body_bytes, body.record_count, body.heads_checksum)
    header = Header(Origin(bytes(16), 1, 1), 1, 0, 1, Kind.SEGMENT, *sizes, 1, 1)
    segment = tmp_path / "segment-0000000001-00001.log"
    segment.write_bytes(layout.encode_batch(header, body).ljust(65_536, b"\0"))
    (tmp_path / "lock").touch()
    data = segment.read_bytes()
    done = serve("--data-dir", str(tmp_path))
    refused(done, exits.NEWER, str(segment), "format 99", "start the newer release")
    assert segment.read_bytes() == data


# -- the command line and the environment ---------------------------------------------------------


def test_an_unknown_flag_names_the_near_one(tmp_path: Path) -> None:
    """Typing errors are the usual ones."""
    done = serve("--drain-timeuot", "5", "--data-dir", str(tmp_path / "data"))
    assert done.returncode == exits.USAGE
    assert "--drain-timeuot" in done.stderr
    assert "--drain-timeout" in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MINIBROKER_PORT", "http"),
        ("MINIBROKER_PORT", "70000"),
        ("MINIBROKER_SEGMENT_BYTES", "65537"),
        ("MINIBROKER_INSECURE", "maybe"),
        ("MINIBROKER_LOOP", "trio"),
        ("MINIBROKER_DRAIN_TIMEOUT", "-1"),
        ("MINIBROKER_LOG_FORMAT", "xml"),
        ("MINIBROKER_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_of_a_variable_names_the_variable(
    variable: str, value: str, tmp_path: Path
) -> None:
    """A container has no command line to look at."""
    flags = ["serve", "--data-dir", str(tmp_path / "data")]
    done = CliRunner().invoke(main, flags, env={variable: value})
    assert done.exit_code == exits.USAGE
    assert variable in done.output
    assert value in done.output
    assert not (tmp_path / "data").exists()


# -- connections ----------------------------------------------------------------------------------


def connected(server: BrokerServer) -> socket.socket:
    """Return a new connection that says nothing."""
    return socket.create_connection((server.host, server.port), PATIENCE_S)


def descriptors(server: BrokerServer) -> int:
    """Return how many files the broker has open."""
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def resident_kib(server: BrokerServer) -> int:
    """Return the memory of the broker."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found
    return int(found[1])


def processor_s(server: BrokerServer) -> float:
    """Return the processor time that the broker has used, in seconds."""
    words = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_more_connections_than_files_may_be_open(loop: str, tmp_path: Path) -> None:
    """Those beyond are told to come back; the others go on, also into new segments; later there is room again."""
    server = BrokerServer(tmp_path / "data", *SMALL, "--loop", loop, command=with_files(LOW_LIMIT))
    try:
        async with minibroker.connect(server.url) as broker, asyncio.timeout(PATIENCE_S):
            queue: minibroker.Queue[bytes] = broker.queue("q")
            with ExitStack() as crowd:
                peers = [crowd.enter_context(connected(server)) for _ in range(2 * LOW_LIMIT)]
                answer = await asyncio.to_thread(peers[0].recv, 4_096)  # the oldest gives way
                assert b"busy" in answer or answer == b""
                before_s, began_s = processor_s(server), monotonic()
                for _ in range(10):
                    await queue.publish(b"x" * 20_000)
                await asyncio.to_thread(
                    look_until,
                    lambda: "connections_full" in server.output,
                    server.process,
                    "connections_full",
                )
                used_s, took_s = processor_s(server) - before_s, monotonic() - began_s
                assert used_s < took_s / 2 + 0.3, "it asks again and again"
            await publish(server.url, b"there is room again")
        assert len(await bodies(server.url)) == 11
        assert server.stop() == 0
        assert "loop_error" not in server.output
    finally:
        server.close()


async def alone(broker: minibroker.Broker) -> None:
    """Wait until the server knows of no connection but this one; all that came before it were accepted before."""
    async with asyncio.timeout(PATIENCE_S):
        while (await broker.stats())["server"]["connections"] > 1:
            await broker.ping()


async def test_200_connects_and_drops_leave_nothing_behind(tmp_path: Path) -> None:
    """No descriptor, no memory, no entry: the limit of connections is as far off as before."""
    server = BrokerServer(tmp_path / "data", *SMALL)
    try:
        await publish(server.url, b"warm")
        with ExitStack() as together:  # what a slow server has open at once is no leak
            for _ in range(200):
                together.enter_context(connected(server))
            async with minibroker.connect(server.url) as broker:
                await broker.ping()
        async with minibroker.connect(server.url) as broker:
            await alone(broker)
            before, before_kib = descriptors(server), resident_kib(server)
            for _ in range(200):
                connected(server).close()
        async with minibroker.connect(server.url) as broker:
            await alone(broker)
            dropped = "the last drop", PATIENCE_S
            await asyncio.to_thread(
                look_until, lambda: descriptors(server) <= before, server.process, *dropped
            )
            assert resident_kib(server) - before_kib < 1_024
        assert server.stop() == 0
    finally:
        server.close()
