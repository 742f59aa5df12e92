"""A descriptor that somebody else reads, or does not: nobody waits for it, and what is lost is counted."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibrokerd.process.outlet import Outlet, write_once
from support.processes import DEADLINE_S

LINE = b"x" * 99 + b"\n"
ROOM = 10_000


def lost(count: int) -> bytes:
    """The line that tells of lost ones."""
    return b"lost %d\n" % count


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: where it is read, where it is written."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read(reader: int, until: bytes) -> bytes:
    """Return what is read up to the line that begins so, which is read too."""
    data = b""
    while until not in data or not data.endswith(b"\n"):
        data += os.read(reader, 65_536)
    return data


def test_lines_arrive_in_their_order(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1], lost)
    for number in range(100):
        outlet.write(b"%d\n" % number)
    assert outlet.flush(DEADLINE_S)
    assert [int(word) for word in read(pipe[0], b"99\n").split()] == list(range(100))
    assert (outlet.lost, outlet.waiting_bytes) == (0, 0)


def test_what_nobody_reads_is_counted_and_said_when_somebody_reads(pipe: tuple[int, int]) -> None:
    """The pipe takes 64 KiB, the outlet its room, the rest is lost; nobody waits."""
    outlet = Outlet(pipe[1], lost, ROOM)
    given = 2_000
    for _ in range(given):
        outlet.write(LINE)
    assert not outlet.flush(0)
    missing = outlet.lost
    assert missing >= given - (65_536 + ROOM) // len(LINE) - 2
    data = read(pipe[0], b"lost")
    assert b"lost %d\n" % missing in data
    outlet.write(b"the end\n")
    data += read(pipe[0], b"the end")
    assert data.count(LINE) == given - missing


@pytest.mark.parametrize("room", [0, ROOM])
def test_a_reader_that_has_gone_stops_nothing(room: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    outlet = Outlet(writer, lost, room)
    for _ in range(10):
        outlet.write(LINE)
    assert outlet.flush(DEADLINE_S)
    assert outlet.lost == 10
    os.close(writer)


def test_a_full_disk_loses_lines_and_says_so_later(tmp_path: Path) -> None:
    """As a redirect onto a disk without room; then there is room."""
    path = tmp_path / "log"
    descriptor = os.open("/dev/full", os.O_WRONLY)
    outlet = Outlet(descriptor, lost)
    outlet.write(LINE)
    outlet.write(LINE)
    assert outlet.flush(DEADLINE_S)
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, descriptor)
    outlet.write(LINE)
    assert outlet.flush(DEADLINE_S)
    assert path.read_bytes() == LINE + b"lost 2\n"
    os.close(file)
    os.close(descriptor)


def test_a_descriptor_that_another_process_made_non_blocking(pipe: tuple[int, int]) -> None:
    """A terminal is shared: what one sets, all have. It is waited for, in the thread."""
    os.set_blocking(pipe[1], False)
    outlet = Outlet(pipe[1], lost)
    for _ in range(1_000):
        outlet.write(LINE)
    outlet.write(b"the end\n")
    assert read(pipe[0], b"the end") == LINE * 1_000 + b"the end\n"
    assert not os.get_blocking(pipe[1])


def test_it_never_sets_a_flag_of_its_descriptor(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1], lost)
    outlet.write(LINE)
    assert outlet.flush(DEADLINE_S)
    assert os.get_blocking(pipe[1])


def test_a_signal_handler_may_write_at_any_moment(pipe: tuple[int, int]) -> None:
    """Also in the middle of another write of the same thread."""
    outlet = Outlet(pipe[1], lost)
    seen = 0

    def caught(*_: object) -> None:
        nonlocal seen
        seen += 1
        outlet.write(b"signal\n")

    before = signal.signal(signal.SIGALRM, caught)
    signal.setitimer(signal.ITIMER_REAL, 0.000_1, 0.000_1)
    try:
        while seen < 200:
            outlet.write(b"line\n")
            if outlet.waiting_bytes > 30_000:
                os.read(pipe[0], 65_536)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    threading.Thread(target=outlet.write, args=(b"the end\n",)).start()
    read(pipe[0], b"the end")
    assert outlet.flush(DEADLINE_S)


def test_one_text_can_be_written_and_waited_for(pipe: tuple[int, int]) -> None:
    """The banner, and last words."""
    write_once(pipe[1], b"listening\n").join(DEADLINE_S)
    assert os.read(pipe[0], 100) == b"listening\n"
    thread = write_once(pipe[1], LINE * 1_000)  # more than a pipe holds
    thread.join(0)
    assert thread.is_alive()
    left = len(LINE) * 1_000  # counted, for the thread may be alive still when all of it was read
    while left:
        left -= len(os.read(pipe[0], 65_536))
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
