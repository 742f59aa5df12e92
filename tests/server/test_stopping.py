"""Signals: a stop in good order under load, and what ends a stop that does not come to its end."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
from hand import frame, part

import minibroker
from minibrokerd.process import exits
from support.broker import COMMAND, BrokerServer
from support.processes import DEADLINE_S, insists, look_until

GATED = (sys.executable, str(Path(__file__).parents[1] / "support" / "gated_broker.py"))
PUBLISHERS = 8
TIMEOUT = shutil.which("timeout")


class Gate:
    """A FIFO that the calls of a gated broker wait at, while it is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def shut(self) -> None:
        """Let the calls of the broker wait."""
        os.mkfifo(self.path)

    def open(self) -> None:
        """Let the one that waits go on, and all that follow."""
        descriptor = os.open(
            self.path, os.O_WRONLY
        )  # returns when the broker waits on the other end
        self.path.unlink()
        os.close(descriptor)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """A gate that is not there yet."""
    return Gate(tmp_path / "gate")


@pytest.fixture
def gated(tmp_path: Path, gate: Gate) -> Iterator[BrokerServer]:
    """A broker whose writes wait at the gate, with half a second to stop."""
    env = {"GATE_WRITES": str(gate.path)}
    server = BrokerServer(tmp_path / "data", "--drain-timeout", "0.5", env=env, command=GATED)
    yield server
    server.close()


def says(server: BrokerServer, text: str) -> None:
    """Wait until the broker has printed a line with this text."""
    look_until(lambda: text in server.output, server.process, text)


def ends(server: BrokerServer) -> int:
    """Wait for the end of the process, whose output is whole then, and return its exit code."""
    return server.process.wait(DEADLINE_S)


async def ready(url: str, queue: str) -> int:
    """Return how many messages wait in a queue."""
    async with minibroker.connect(url) as broker:
        count: int = (await broker.queue(queue).stats())["queues"][queue]["ready"]
        return count


@pytest.mark.parametrize(
    ("number", "loop"),
    [(signal.SIGTERM, "uvloop"), (signal.SIGINT, "uvloop"), (signal.SIGTERM, "asyncio")],
)
async def test_a_stop_under_load_keeps_what_was_confirmed(
    number: int, loop: str, tmp_path: Path
) -> None:
    """Exit code 0 within the deadline; after a start each message is there once, those in the air too."""
    server = BrokerServer(tmp_path / "data", "--loop", loop, "--drain-timeout", "10")
    ids: set[minibroker.MessageId] = set()
    going, news = True, asyncio.Event()

    async def publish(queue: minibroker.Queue[bytes]) -> None:
        while going:
            ids.add((await queue.publish(b"x" * 500, timeout=DEADLINE_S)).id)
            news.set()

    async def more() -> None:
        news.clear()
        await asyncio.wait_for(news.wait(), DEADLINE_S)

    try:
        async with minibroker.connect(server.url) as broker:
            queue: minibroker.Queue[bytes] = broker.queue("load")
            loads = [asyncio.ensure_future(publish(queue)) for _ in range(PUBLISHERS)]
            while len(ids) < 100:
                await more()
            server.process.send_signal(number)
            assert await asyncio.to_thread(ends, server) == 0
            await asyncio.to_thread(server.restart)
            await more()
            going = False
            await asyncio.gather(*loads)
        assert await ready(server.url, "load") == len(ids)
        assert "after a clean stop" in server.output
        assert "left_at_once" not in server.output
    finally:
        server.close()


@contextmanager
def hanging(server: BrokerServer, gate: Gate) -> Iterator[None]:
    """A client whose first message is confirmed, and whose second one is in a write that hangs."""
    with socket.create_connection((server.host, server.port), DEADLINE_S) as client:
        client.sendall(frame(part("hello", protocol=1)) + publish_frame(1))
        received = b""
        while b"confirm" not in received:
            received += client.recv(4_096)
        gate.shut()
        client.sendall(publish_frame(2))
        says(server, "gate: writes")
        yield


def publish_frame(sequence: int) -> bytes:
    """Return a publish of one message to q."""
    head = part("publish", queue="q", count=1)
    lengths = struct.pack("<II", 0, 4)
    return frame(head, sequence=sequence, answered_below=sequence, lengths=lengths, blob=b"body")


def is_kept(server: BrokerServer, gate: Gate) -> None:
    """After a start as after a crash, the confirmed message is there."""
    gate.path.unlink()
    server.restart()
    assert "after a crash" in server.output
    assert asyncio.run(ready(server.url, "q")) in (1, 2)


def test_a_second_signal_leaves_at_once(gated: BrokerServer, gate: Gate) -> None:
    """The disk hangs, so the stop waits; whoever asks twice does not want to."""
    gated.flags = ("--drain-timeout", "60")
    gated.restart()
    with hanging(gated, gate):
        gated.process.terminate()
        says(gated, " stopping ")
        assert insists(gated.process, signal.SIGINT) == exits.DRAIN
    is_kept(gated, gate)
    assert "asked to stop twice" in gated.output


def test_a_signal_that_arrives_twice_is_one(gated: BrokerServer, gate: Gate) -> None:
    """`timeout` signals its child, and then the child's group: both at once, and the stop is in good order."""
    gated.flags = ("--drain-timeout", "60")
    gated.restart()
    with hanging(gated, gate):
        gated.process.send_signal(signal.SIGTERM)
        gated.process.send_signal(signal.SIGINT)  # two of a number may be one before they arrive
        says(gated, " stopping ")
        gate.open()
        assert ends(gated) == exits.DONE, gated.output


@pytest.mark.skipif(TIMEOUT is None, reason="needs timeout of the coreutils")
def test_timeout_of_the_coreutils_stops_it_in_good_order(tmp_path: Path) -> None:
    """It is told to hand SIGTERM on, as when its time is over."""
    server = BrokerServer(tmp_path / "data", command=(str(TIMEOUT), "100", *COMMAND))
    try:
        server.process.send_signal(signal.SIGTERM)
        assert ends(server) == exits.DONE, server.output
        assert b"clean" in (server.data_dir / "state").read_bytes()
    finally:
        server.close()


def test_signals_that_come_late_change_nothing(broker_server: BrokerServer) -> None:
    """Until the very end of the interpreter: no traceback, and no other exit code."""
    broker_server.process.terminate()
    deadline = monotonic() + DEADLINE_S
    while broker_server.running:
        if " stopped " in broker_server.output:
            broker_server.process.send_signal(signal.SIGTERM)
        assert monotonic() < deadline
    assert broker_server.process.returncode == exits.DONE, broker_server.output
    assert "Traceback" not in broker_server.output


# Both signals are caught before the handler of either has run, and that of the first has the second one ignored.
CAUGHT_AND_THEN_IGNORED = """
import os, signal
from minibrokerd.process import stopping

both = {signal.SIGUSR1, signal.SIGUSR2}
signal.signal(signal.SIGUSR1, lambda number, frame: stopping.ignore([signal.SIGUSR2]))
signal.signal(signal.SIGUSR2, lambda number, frame: print("handled"))
signal.pthread_sigmask(signal.SIG_BLOCK, both)
for number in both:
    os.kill(os.getpid(), number)
signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
print("goes on")
"""


def test_a_signal_that_was_caught_before_all_are_ignored_says_nothing() -> None:
    """The interpreter would, of the race between the two."""
    line = [sys.executable, "-c", CAUGHT_AND_THEN_IGNORED]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("goes on\n", "")


def test_a_passed_deadline_leaves_as_after_a_crash(gated: BrokerServer, gate: Gate) -> None:
    """A disk that does not answer must not hold a stop up for ever."""
    with hanging(gated, gate):
        gated.process.terminate()
        assert ends(gated) == exits.DRAIN
    is_kept(gated, gate)
    assert "within 0.5 s" in gated.output


def test_the_footer_has_the_deadline_too(gated: BrokerServer, gate: Gate) -> None:
    """Everything is confirmed, and then the disk hangs in the very last write."""
    with hanging(gated, gate):
        gate.open()
        says(gated, "queue_created")  # the sweep after it: the write is over
        gate.shut()
        gated.process.terminate()
        assert ends(gated) == exits.DRAIN
    is_kept(gated, gate)
    assert " drained " in gated.output


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_during_recovery_stops_before_anything_is_written(
    signals: int, tmp_path: Path, gate: Gate
) -> None:
    """One: in good order when the read that hangs has ended. Two: at once."""
    server = BrokerServer(tmp_path / "data", command=GATED, env={"GATE_READS": str(gate.path)})
    assert server.stop() == 0
    before = {path.name: path.read_bytes() for path in server.data_dir.glob("segment*")}
    gate.shut()
    try:
        process = server.launch()
        look_until(lambda: "gate: reads" in server.output, process, "gate: reads")
        process.send_signal(signal.SIGTERM)
        if signals == 1:
            gate.open()
            assert process.wait(DEADLINE_S) == exits.DONE
        else:
            assert insists(process, signal.SIGINT) == exits.DRAIN
    finally:
        server.close()
    assert {path.name: path.read_bytes() for path in server.data_dir.glob("segment*")} == before
    assert server.output.count("listening on") == 1


async def test_a_client_that_never_reads_does_not_hold_a_stop_up(
    broker_server: BrokerServer,
) -> None:
    """It is cut off after a second; what it was not told it is told after its resume."""
    async with minibroker.connect(broker_server.url) as broker:
        queue: minibroker.Queue[bytes] = broker.queue("large")
        for _ in range(64):
            await queue.publish(b"x" * 256 * 1024)
        with socket.socket() as deaf:
            # Before it connects, else the kernel takes megabytes for it.
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.connect((broker_server.host, broker_server.port))
            consume = part("consume", queue="large", consumer=1, prefetch=64)
            hello = part("hello", protocol=1, client="deaf")
            deaf.sendall(frame(hello) + frame(consume, request=1))
            # A burst first, more once its session is safe: 4 MiB are more than the kernel takes for it.
            while (await queue.stats())["queues"]["large"]["held"] < 16:
                assert "connection_ended" not in broker_server.output
            assert await asyncio.to_thread(broker_server.stop) == 0
    assert re.search(r"connection_ended .*client=deaf .*reason=", broker_server.output)


def test_without_standard_streams_nothing_is_written_into_the_log(tmp_path: Path) -> None:
    """A segment must not get the number of standard error, where the events go."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    bare = ("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *COMMAND)
    address = ("--data-dir", str(tmp_path / "data"), "--port", str(port))
    process = subprocess.Popen([*bare, "serve", *address, "--log-level", "debug"])
    try:
        asyncio.run(publish_ten(f"minibroker://127.0.0.1:{port}"))
        links = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
        assert links == [os.devnull] * 3
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
    server = BrokerServer(tmp_path / "data")
    try:
        assert asyncio.run(ready(server.url, "q")) == 10
    finally:
        server.close()


@pytest.mark.parametrize("mask", ["000", "777"])
def test_the_files_are_for_their_user_alone_whatever_the_umask(mask: str, tmp_path: Path) -> None:
    """In an empty environment, and in a working directory that is gone, too."""
    gone = tmp_path / "gone"
    start = f'umask {mask}; cd "{gone}"; rmdir "{gone}"; exec env -i "$@"'
    gone.mkdir()
    server = BrokerServer(tmp_path / "data", command=("/bin/sh", "-c", start, "sh", *COMMAND))
    try:
        assert server.data_dir.stat().st_mode & 0o777 == 0o700
        modes = {path.stat().st_mode & 0o777 for path in server.data_dir.iterdir()}
        assert modes == {0o600}
        assert asyncio.run(ready_in_all(server.url)) == 1
        assert server.stop() == 0
    finally:
        server.close()


async def ready_in_all(url: str) -> int:
    """Publish one message and return how many wait."""
    async with minibroker.connect(url) as broker:
        await broker.queue("q").publish(b"x")
    return await ready(url, "q")


async def publish_ten(url: str) -> None:
    """Publish to q, as soon as there is a broker."""
    async with minibroker.connect(url, connect_timeout=DEADLINE_S) as broker:
        for _ in range(10):
            await broker.queue("q").publish(b"kept")
