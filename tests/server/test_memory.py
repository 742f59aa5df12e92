"""When memory is given back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from minibrokerd.process import memory

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("hot_mib", "trims"),
    [
        ([0, 1, 7, 0], 0),  # too little to be worth it
        ([64, 48, 20], 0),  # not much less yet
        ([64, 15, 14, 10], 1),
        ([64, 15, 10, 0, 0], 2),  # once in between, and once at the end
        ([64, 0, 0, 64, 0], 2),
    ],
)
def test_memory_is_given_back_when_a_backlog_has_gone(
    monkeypatch: pytest.MonkeyPatch, hot_mib: list[int], trims: int
) -> None:
    trimmer = memory.Trimmer()
    calls: list[int] = []

    def trim() -> None:
        calls.append(1)

    monkeypatch.setattr(memory, "give_back", trim)
    for mib in hot_mib:
        trimmer.look(mib * MIB)
    assert len(calls) == trims


def printed_by(code: str) -> str:
    """Return what a fresh interpreter prints: what it does to its heap, or to its collector, stays there."""
    line = [sys.executable, "-c", code]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(memory._OPTION is None, reason="this C library has one heap")
def test_what_a_thread_used_is_given_back() -> None:
    """What is large is mapped apart; once some of that was freed, a heap keeps as much at its end."""
    code = (
        "from threading import Thread; from minibrokerd.process import memory; memory.share_heap()\n"
        "def use(): bytes(8_000_000); [bytes(16_000) for _ in range(500)]\n"
        "def run(): thread = Thread(target=use); thread.start(); thread.join(); memory.give_back()\n"
        "before = memory.resident_bytes(); run(); print(memory.resident_bytes() - before)"
    )
    assert int(printed_by(code)) < MIB


def test_the_gauge_goes_by_the_resident_size_while_it_grows() -> None:
    """What was freed and not given back is used again, so it is not held against publishes."""
    sizes = [50 * MIB, 70 * MIB, 70 * MIB, 70 * MIB, 40 * MIB]
    gauge, limit = memory.Gauge(lambda: sizes.pop(0)), 64 * MIB
    gauge.look(30 * MIB, limit)
    assert not gauge.is_above(30 * MIB, limit)
    gauge.look(40 * MIB, limit)
    assert gauge.is_above(40 * MIB, limit)
    assert not gauge.is_above(20 * MIB, limit), "half of it was drained"
    gauge.look(20 * MIB, limit)
    assert not gauge.is_above(20 * MIB, limit), "the process did not grow"
    assert not gauge.is_above(1 * MIB, limit)
    gauge.look(40 * MIB, limit)
    assert gauge.is_above(40 * MIB, limit)
    gauge.look(40 * MIB, limit)
    assert not gauge.is_above(60 * MIB, limit)


def test_no_pass_of_the_collector_looks_at_what_an_earlier_one_saw() -> None:
    """However much waits, a pass costs some milliseconds: what survived one is out of the next one's sight."""
    code = (
        "import gc; from minibrokerd.process import memory; memory.collect_little(); seen = []\n"
        "gc.callbacks.append(lambda phase, info: phase == 'start' and seen.append(len(gc.get_objects())))\n"
        "kept = [[n] for n in range(300_000)]\n"
        "print(len(seen), max(seen), gc.get_freeze_count() >= 295_000)"
    )
    passes, most, frozen = printed_by(code).split()
    assert int(passes) >= 50
    assert int(most) <= 2 * memory.YOUNG_OBJECTS
    assert frozen == "True"
