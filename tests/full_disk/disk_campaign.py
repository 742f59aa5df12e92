"""A disk with no byte free, again and again: `make full-disk`.

    BUDGET=300 SEED=7 make full-disk

One broker on a tmpfs of a few MiB. Each cycle publishes until `disk_full`, lets junk take the rest, acks thousands
of messages one at a time, each in a batch of its own, is killed or stopped meanwhile and started again, and then
must take publishes within two seconds after the junk is gone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from time import monotonic

from disk_client import DiskClient, DiskLedger
from small_disk import SmallDisk, in_namespace

from support.broker import BrokerServer

DISK_BYTES = (8 << 20, 12 << 20, 16 << 20)
SEGMENT_BYTES = (64 << 10, 128 << 10, 256 << 10)
SHAPES = (
    (1, 500),
    (16, 500),
    (4, 2_000),
    (16, 300),
    (50, 150),
    (500, 10),  # tiny messages, where acks take more room than what they end
)  # messages in a frame, bytes of a body
ACKS = 10_000  # one at a time, in one cycle
# Below this a message is smaller than the record of its ack: acks go on no faster than the log is copied.
SMALL_BYTES, SMALL_ACKS = 200, 1_500
SPARSE = 0.3  # of the cycles: about one message lives in each segment when the acks begin
NACKS, EXTENDS = 0.1, 0.1  # of the acks that have one before them
FILL_EVERY = 50  # acks; whatever was freed meanwhile is taken again
RESUME_MS = 2_000
JUNK_BYTES = 2 << 20  # at least so much comes back at the end of a cycle


@dataclass(slots=True)
class DiskFigures:
    """What a campaign came to; `str` is its last line."""

    cycles: int = 0
    acks: int = 0
    sparse: int = 0  # cycles that began with about one message in each segment
    nacks: int = 0
    extends: int = 0
    kills: int = 0
    stops: int = 0
    published: int = 0
    resumed_ms: list[float] = field(default_factory=list)
    lost: int = 0
    nacks_refused: int = 0  # a nack makes its message larger, and may not pay with the room of acks

    def __str__(self) -> str:
        return (
            f"full_disk: cycles={self.cycles} acks_at_zero_free={self.acks} "
            f"sparse={self.sparse} nacks={self.nacks} extends={self.extends} "
            f"restarts={self.kills + self.stops} kills={self.kills} stops={self.stops} "
            f"published={self.published} resumed_ms_max={max(self.resumed_ms, default=0):.0f} "
            f"nacks_refused={self.nacks_refused} lost={self.lost}"
        )


class FullDisk:
    """One broker on a small disk, its client, and the cycles."""

    def __init__(self, directory: Path, seed: int, figures: DiskFigures) -> None:
        self._random = Random(seed)
        self._segment_bytes = self._random.choice(SEGMENT_BYTES)
        self.figures = figures
        self._ledger = DiskLedger()
        self._disk = SmallDisk(directory / "disk", self._random.choice(DISK_BYTES))
        flags = ("--segment-bytes", str(self._segment_bytes))
        try:
            self.server = BrokerServer(directory / "disk" / "data", *flags)
        except BaseException:
            self._disk.close()
            raise
        self._client = self._connect()

    def _connect(self) -> DiskClient:
        return DiskClient(self.server.port, self._ledger, self._random)

    def close(self) -> None:
        """End the broker, unmount the disk."""
        self._client.close()
        self.server.close()
        self._disk.close()

    def cycle(self, acks: int) -> None:
        """Fill the disk, ack at zero bytes free, restart meanwhile, make room, publish again."""
        count, body_bytes = self._random.choice(SHAPES)
        self._disk.take(JUNK_BYTES)
        self._client.publish_all(count, body_bytes)
        self._disk.fill()
        self._client.publish_all(count, body_bytes)
        self._compare()
        self._client.consume()
        self._end_some(acks, body_bytes)
        self._compare()
        self._disk.release()
        self.figures.resumed_ms.append(self._client.resumed_ms(RESUME_MS))
        self.figures.cycles += 1

    def _end_some(self, acks: int, body_bytes: int) -> None:
        """Ack one at a time at zero bytes free, and nack, extend and restart in between."""
        if self._random.random() < SPARSE:
            self._client.thin_out(max(self._segment_bytes // (body_bytes + 100), 2))
            self._disk.fill()
            self._compare()
            self.figures.sparse += 1
        most = SMALL_ACKS if body_bytes < SMALL_BYTES else acks
        acks = min(acks, len(self._ledger.live), most)
        shuffled = self._random.random() < 0.5
        # None may be left: a disk that was nearly full took little, and it was thinned out.
        restarts = {self._random.randrange(acks) for _ in range(self._random.randrange(3)) if acks}
        for number in range(acks):
            if number % FILL_EVERY == 0:
                self._disk.fill()
            if number in restarts:
                self._restart()
            if self._random.random() < NACKS:
                is_taken = self._client.nack_one()
                self.figures.nacks += is_taken
                self.figures.nacks_refused += not is_taken
            extends = self._random.random() < EXTENDS
            self.figures.extends += extends
            self._client.ack_one(shuffled=shuffled, extends=extends)
            self.figures.acks += 1

    def _restart(self) -> None:
        """Kill or stop the broker, and start it again on the full disk."""
        if self._random.random() < 0.5:
            self.server.kill()
            self.figures.kills += 1
        else:
            code = self.server.stop()
            assert code == 0, f"it stopped with {code}:\n{self.server.output}"
            self.figures.stops += 1
        self._client.close()
        self._disk.fill()
        self.server.restart()
        self._client = self._connect()
        self._compare()
        self._client.consume()

    def finish(self) -> None:
        """Drain the queue: everything that was confirmed and not acked is there, once."""
        self._compare()
        self._client.consume()
        self._client.drain()
        assert self._client.living() == 0
        self.figures.published = self._ledger.published

    def _compare(self) -> None:
        living, should = self._client.living(), len(self._ledger.live)
        self.figures.lost += max(should - living, 0)
        assert living == should, f"it has {living} messages, not {should}"


def run_full_disk(directory: Path, seed: int, budget_s: float, acks: int = ACKS) -> DiskFigures:
    """Run cycles until time is up, at least one; return what they came to.

    Raises:
        AssertionError: a promise was broken.
    """
    figures, end_s = DiskFigures(), monotonic() + budget_s
    while not figures.cycles or monotonic() < end_s:
        place = directory / f"world-{seed}"
        place.mkdir()
        world = FullDisk(place, seed, figures)
        try:
            for _ in range(3):
                world.cycle(acks)
                if monotonic() > end_s:
                    break
            world.finish()
        except (AssertionError, ConnectionError) as error:
            error.add_note(f"SEED={seed}\n{world.server.output[-3_000:]}")
            raise
        finally:
            world.close()
        seed += 1
    return figures


def main() -> None:
    """Run as the environment says, where this user may mount; end in one line."""
    if "--inside" not in sys.argv and os.geteuid() != 0:
        command = in_namespace([sys.executable, *sys.argv, "--inside"])
        os.execvp(command[0], command)
    seed = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
    budget_s = float(os.environ.get("BUDGET") or 300)
    print(f"SEED={seed} BUDGET={budget_s:.0f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="minibroker-full-disk-") as directory:
        print(run_full_disk(Path(directory), seed, budget_s))


if __name__ == "__main__":
    main()
