"""Writes tests/vectors/: small data directories as this release leaves them, which later releases must read.

Run it once for a release that changes what is written, with the new format's number: `PYTHONPATH=tests:tests/core
python tests/log/make_vectors.py log-2`. What is there is never written again: it says what old releases wrote.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from damaged_world import bodies, segments, start_of, story, terms, write

VECTORS = Path(__file__).parent.parent / "vectors"
KEPT = ("key", "state", "segment-*.log")


def make(name: str) -> None:
    """Write the story as a closed log of several segments, and as a log that a crash left with a torn end."""
    for closed in (True, False):
        path = VECTORS / f"{name}-{'closed' if closed else 'torn'}"
        assert not path.exists(), f"{path} is what an old release wrote: choose another name"
        asyncio.run(write(path, story(fillers=12), segment_bytes=4_096, closed=closed))
        if not closed:
            _tear(segments(path)[-1])
        kept = {entry for pattern in KEPT for entry in path.glob(pattern)}
        for entry in set(path.iterdir()) - kept:
            entry.unlink()
        text = json.dumps(expected(path), indent=1)
        path.with_suffix(".json").write_text(text + "\n")


def expected(path: Path) -> dict[str, object]:
    """Return what a start finds in a data directory: the messages, and the numbers it goes on with."""
    start = start_of(path)
    own = {
        f"{origin}-{sequence}": list(each)
        for found in terms(path).values()
        for (origin, sequence), each in found.items()
    }
    return {
        **({"terms": own} if own else {}),
        "epoch": start.epoch,
        "next_queue_number": start.next_queue_number,
        "sequences": {str(number): sequence for number, sequence in start.sequences.items()},
        "queues": {
            queue: {
                f"{origin}-{sequence}": body.decode() for (origin, sequence), body in found.items()
            }
            for queue, found in bodies(path).items()
        },
    }


def _tear(segment: Path) -> None:
    """Put half of a batch behind the last one, as a write that was cut short."""
    data = bytearray(segment.read_bytes())
    end = (len(data.rstrip(b"\0")) + 7) & -8
    data[end : end + 40] = data[:40]
    segment.write_bytes(data)


if __name__ == "__main__":
    make(sys.argv[1])
