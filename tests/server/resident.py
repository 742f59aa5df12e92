"""Run as a process: print, for each hostile frame, the KiB by which the resident set peaked beyond the frame."""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgpack
from hand import Hand, frame, part
from hostile import nested
from test_hostile_frames import ALL, chunks_of, feed

LIBC = ctypes.CDLL(None)
STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")  # 5: the peak starts anew


def resident_kib(field: str) -> int:
    """Return VmRSS, what is resident, or VmHWM, the most that was."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1])


def grown_kib(call: Callable[[], object]) -> int:
    """Return by how much a call makes the resident set peak."""
    gc.collect()
    LIBC.malloc_trim(0)  # else what was freed before is used again and no growth is seen
    RESET.write_text("5")
    before = resident_kib("VmRSS")
    call()
    return resident_kib("VmHWM") - before


def bomb() -> None:
    """What a careless decoder does with 8 KB: the measure must see it."""
    try:
        msgpack.unpackb(nested(b"\xdc\x1f\x00", 1_000) + bytes(5_000))
    except ValueError:
        return


def least_kib(hand: Hand, data: bytes) -> int:
    """Feed a frame up to three times: what only the first costs is the allocator's, not the frame's."""
    chunks, least = chunks_of(data), 1 << 30
    for _ in range(3):
        grown = grown_kib(partial(feed, hand.login(), chunks)) - len(data) // 1024
        least = min(least, grown)
        if least <= 1024:
            break
    return least


def main() -> None:
    """Print the canary, then every frame."""
    logging.disable()
    hand = Hand()
    hand.login().give(frame(part("queue_set", queue="q", settings={}), request=1))
    gc.freeze()
    print("canary", grown_kib(bomb))
    for name, make in ALL.items():
        print(name, least_kib(hand, make()))


if __name__ == "__main__":
    main()
