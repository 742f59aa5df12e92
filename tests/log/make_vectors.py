"""Writes tests/vectors/: small data directories as this release leaves them, which later releases must read.

Run it once for a release that changes what is written, with the new format's number: `PYTHONPATH=tests:tests/core
python tests/log/make_vectors.py log-2`, and the same with `lived-2`, which has more than messages: all that a
broker and its clients can come back to (lived_story.py). What is there is never written again: it says what old
releases wrote, and what a start made of it then.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
from pathlib import Path

import lived_log
from damaged_world import bodies, segments, start_of, story, terms, write
from lived_story import live

VECTORS = Path(__file__).parent.parent / "vectors"
KEPT = ("key", "state", "segment-*.log", "segment-*.index")


def make(name: str) -> None:
    """Write the story as a closed log of several segments, and as a log that a crash left with a torn end."""
    for closed in (True, False):
        path = VECTORS / f"{name}-{'closed' if closed else 'torn'}"
        assert not path.exists(), f"{path} is what an old release wrote: choose another name"
        if name.startswith("lived"):
            _make_lived(path, closed=closed)
        else:
            asyncio.run(write(path, story(fillers=12), segment_bytes=4_096, closed=closed))
        if not closed:
            _tear(segments(path)[-1])
        _keep(path, KEPT)
        text = json.dumps(expected(path), indent=1)
        path.with_suffix(".json").write_text(text + "\n")


def _make_lived(path: Path, *, closed: bool) -> None:
    lived = live()
    asyncio.run(lived_log.write(path, lived, segment_bytes=4_096, closed=closed))
    key = (path / "key").read_bytes()
    for known in lived.clients.values():
        text = known["session"].to_bytes(8, "big")
        known["secret"] = hmac.digest(key, text, hashlib.sha256).hex()
    found = lived_log.Found(path, lived.clients, lived.unix_ms, digests=True).everything()
    content = {"unix_ms": lived.unix_ms, "clients": lived.clients, "found": found}
    path.with_suffix(".found.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")


def _keep(path: Path, patterns: tuple[str, ...]) -> None:
    kept = {entry for pattern in patterns for entry in path.glob(pattern)}
    for entry in set(path.iterdir()) - kept:
        entry.unlink()


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
