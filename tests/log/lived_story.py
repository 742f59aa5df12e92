"""A broker's life that leaves all it can in its log, for later releases to find.

Told through the protocol alone. Between them its three lives write every type of record, and leave messages in
every way in which one can stand: fresh, keyed, delayed, begun, extended, failed, expired, lost with its worker,
released, dead, redriven, moved, and dead without room in its DLQ. Sessions are left in every state that a client
can come back to.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minibroker.contract import limits
from minibroker.contract.wire import pack_runs
from minibrokerd.log.seam import Batch

sys.path.append(str(Path(__file__).parent.parent / "core"))
from core_client import Client, Delivered, settle_part
from harness import World

SECOND_MS = 1_000
HOUR_MS = 3_600_000


@dataclass
class Lived:
    """The batches of each life of the broker, and what clients know: a session, its frames, what it has begun."""

    lives: list[list[Batch]] = field(default_factory=list)
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    unix_ms: int = 0

    def knows(self, name: str, client: Client, *begun: Delivered) -> None:
        """Note what a client would come back with."""
        self.clients[name] = {
            "session": client.session,
            "begun": [message.run for message in begun],
            "frames": {str(number): frame.hex() for number, frame in client.sent.items()},
        }


def live() -> Lived:
    """Live three lives; the first ends in good order, the second in a crash."""
    lived, world = Lived(), World()
    _is_copied(world, lived)
    _ends(world)
    _is_written_in_four_places(world)
    first = len(world.log)
    world.digests = True
    world.restart()
    world.digests = False
    _is_set_aside(world)
    _is_forgotten(world, lived)
    held = _is_held_by_one_who_comes_back(world)
    second = len(world.log)
    world.restart(clean=False)
    _goes_on(world, lived, *held)
    _fails(world)
    _has_its_own_terms(world)
    _is_dead(world)
    _is_left_by_sessions(world, lived)
    _is_kept_less_safely(world, lived)
    _waits(world)
    lived.lives = [world.log[:first], world.log[first:second], world.log[second:]]
    lived.unix_ms = world.unix_ms
    return lived


def _is_copied(world: World, lived: Lived) -> None:
    """What stood in the oldest segment was copied forward: COPY, COPYRUN, COPYPART, FRAME, QUEUE, RESERVE."""
    client = world.hello("early")
    client.set("copied", max_attempts=7, retry_jitter_percent=0, lease_ms=12 * HOUR_MS)
    client.publish("copied", *(f"copied {at}".encode() * at for at in range(1, 9)))
    taken = client.receive_all("copied", 5)
    client.publish("copied", b"part 1", b"part 2", b"part 3", keys=["a", "", "b"])
    client.publish("copied", b"in 3 h", b"in 4 h", delays=[3 * HOUR_MS, 4 * HOUR_MS])
    client.publish("copied", b"as bytes", b"as msgpack", encodings=[1, 0])
    client.publish("copied", b"of k 1", b"of k 2", key="k", max_attempts=9, lease_ms=90_000)
    client.publish("copied", b"in 2 h", delay_ms=2 * HOUR_MS)
    client.settle("ack", taken[1])
    client.settle("nack", taken[2], delay_ms=HOUR_MS, error=("ValueError", "before the copy"))
    client.settle("release", taken[3])
    world.advance(5_000, wall_ms=65_000)  # what is left of a delay goes by log time
    world.free(world.core.synced)
    lived.knows("early", client, taken[0], taken[1], taken[4])


def _ends(world: World) -> None:
    """Queues that ended, a purge, and ids that are never used again."""
    client = world.hello("ending")
    client.publish("purged", b"gone 1", b"gone 2")
    client.purge("purged")
    client.publish("purged", b"after the purge")
    client.publish("deleted", b"gone 3")
    client.delete("deleted", force=True)
    client.request({"op": "goodbye"})


def _is_written_in_four_places(world: World) -> None:
    client = world.hello("cold")
    for at in range(4):
        client.publish("cold", f"cold {at}".encode())


def _is_set_aside(world: World) -> None:
    """A record that could not be read back: its message is set aside, those beside it stay."""
    place = next(at for at, found in world.records.items() if bytes(found.tail[-6:]) == b"cold 2")
    found = world.records[place]
    world.records[place] = None  # type: ignore[assignment]
    world.thaw()
    world.advance(SECOND_MS)
    world.records[place] = found


def _is_forgotten(world: World, lived: Lived) -> None:
    """Two sessions that ended: one without a word, long ago, and one that said goodbye."""
    silent = world.hello("silent")
    silent.publish("silent", b"of a session that ended unasked")
    world.disconnect(silent)
    gone = world.hello("gone")
    gone.publish("silent", b"of a session that said goodbye")
    lived.knows("silent", silent)
    lived.knows("gone", gone)
    gone.request({"op": "goodbye"})
    world.advance(limits.FRAME_OUTCOME_MS + limits.SESSION_KEPT_MS)


def _is_held_by_one_who_comes_back(world: World) -> tuple[Client, list[Delivered]]:
    """Leases, one of them renewed, and some that are only held, at the moment of a crash."""
    client = world.hello("worker")
    client.set("work", lease_ms=600_000, retry_jitter_percent=0)
    client.publish("work", *(f"work {at}".encode() for at in range(8)))
    client.consume("work", prefetch=6)
    taken = client.messages()
    client.begin(*taken[:4])
    part, columns = settle_part("extend", "work", [taken[0].run], lease_ms=2 * HOUR_MS)
    client.request(part, columns)
    return client, taken


def _goes_on(world: World, lived: Lived, before: Client, taken: list[Delivered]) -> None:
    """It comes back with some of it; what it does not name is `broker_lost`, or not begun."""
    client = world.resume(before, taken[:3])
    client.sent |= before.sent
    world.advance(SECOND_MS)
    client.settle("ack", taken[2])
    client.settle("ack", taken[2])  # lost: it has ended
    world.advance(700_000)
    client.consume("work", prefetch=1)
    (marked,) = client.messages()
    client.begin(marked)
    lived.knows("worker", client, taken[0], taken[1], marked)


def _fails(world: World) -> None:
    """Histories: errors, all causes, and one so long that its middle is left out."""
    client = world.hello("failing")
    client.set(
        "failed",
        max_attempts=40,
        retry_delay_ms=2_000,
        retry_factor_percent=300,
        retry_cap_ms=7_000_000,
        retry_jitter_percent=0,
        lease_ms=20_000,
    )
    client.publish("failed", b"by its rule", b"by the call", b"expired", b"released", b"often")
    rule, call, expired, released, often = client.receive_all("failed")
    client.settle("nack", rule, error=("KeyError", "'id' \u2713"))
    client.settle("nack", call, delay_ms=HOUR_MS, error=("Timeout", "x" * 3_000))
    client.settle("release", released)
    for at in range(14):
        client.settle("nack", often, delay_ms=0, error=(f"Error{at}", "again"))
        often = next(each for each in client.receive_all("failed") if each.body == b"often")
    world.advance(20_100)  # the lease of `expired` is over, with those of the others
    lone = world.hello("dying")
    lone.publish("failed", b"with its worker")
    taken = [each for each in lone.receive_all("failed") if each.body == b"with its worker"]
    assert len(taken) == 1
    world.disconnect(lone)
    world.advance(20_100)
    assert expired.attempt == 1


def _has_its_own_terms(world: World) -> None:
    client = world.hello("terms")
    client.publish("terms", b"thrice, for 2 min", max_attempts=3, lease_ms=120_000)
    client.publish("terms", b"as the queue says")
    for text in ("no route", ""):  # terms of one kind fill a delivery
        (message,) = client.receive_all("terms")
        client.settle("nack", message, delay_ms=30_000, error=("OSError", text))


def _is_dead(world: World) -> None:
    """Dead by its attempts and by a reject, redriven, moved, and dead with no room in the DLQ."""
    client = world.hello("burying")
    client.set("dying", max_attempts=1)
    client.publish("dying", b"dead", b"rejected", b"redriven", b"moved", key="tenant")
    dead, rejected, *others = client.receive_all("dying")
    client.settle("nack", dead, error=("ZeroDivisionError", "division by zero"))
    client.settle("reject", rejected, error=("BodyError", "no JSON"))
    client.settle("nack", *others, error=("RuntimeError", "once"))
    client.redrive("dying.dlq", [others[0].id])
    part = {"op": "move", "queue": "dying.dlq", "target": "moved", "runs": 1, "count": 0}
    client.request(part, pack_runs([(0, *others[1].id, 1)]))
    client.set("full", max_attempts=1)
    client.set("full.dlq", max_messages=1)
    client.publish("full", b"dead 1", b"dead 2")
    client.settle("nack", *client.receive_all("full"), error=("MemoryError", "full"))


def _is_left_by_sessions(world: World, lived: Lived) -> None:
    """Outcomes that a client may still ask for; some that it said it has."""
    client = world.hello("asking")
    client.set("asked", retry_jitter_percent=0)
    client.publish("asked", b"1", b"2", b"3", b"4")
    client.publish("asked", b"5")
    client.answered_below = 2
    first, second, *_ = client.receive_all("asked", 4)
    client.settle("ack", first)
    part, columns = settle_part("ack", "asked", [second.run, (first.token, *first.id, 1)])
    more, column = settle_part("nack", "asked", [(7, 1, 1, 1)], error=("E", ""))
    client.sequenced([part, more], columns + column)
    # The answer to this receive may not have come: the client asks again, under its number.
    client.publish("once", b"received once")
    answer = client.receive("once", 1)
    assert len(answer["messages"]) == 1
    lived.knows("asking", client)
    lived.clients["asking"]["received"] = client.requests


def _is_kept_less_safely(world: World, lived: Lived) -> None:
    client = world.hello("fast")
    client.set("lazy", durability="lazy")
    client.publish("lazy", b"lazy 1", b"lazy 2")
    client.set("memory", durability="memory")
    client.publish("memory", b"gone at a restart")
    lived.knows("fast", client)


def _waits(world: World) -> None:
    """What nothing has happened to yet, in frames of one and of many, with holes; and a second settings record."""
    client = world.hello("waiting")
    client.publish("waits", *(f"{at:03}".encode() for at in range(20)))
    for at in range(6):
        client.publish("waits", f"single {at}".encode() * 9)
    taken = client.receive_all("waits", 12)
    client.settle("ack", taken[0], *taken[5:9])
    client.settle("release", *taken[1:5], *taken[9:])
    client.publish("waits", b"keyed 1", b"keyed 2", b"keyed 3", keys=["x", "y", "x"])
    client.publish("waits", b"soon", b"later", b"now", delays=[30_000, HOUR_MS, 0])
    client.set("waits", max_messages=500)
    client.set("waits", lease_ms=45_000)
    client.set("empty", max_attempts=2)
    client.publish("newest", b"of the queue with the highest number, which ends")
    client.delete("newest", force=True)
