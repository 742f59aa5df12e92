"""Who lives in a world: an administrator, publishers, consumers, those who change their minds; out of its seed."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from sim_admin import Administrator
from sim_client import Habits, SimulatedClient
from sim_impatient import ImpatientClient

from minibroker.session.pacing import Prefetch

if TYPE_CHECKING:
    from sim_world import World


def make_queues(world: World) -> None:
    """Draw the queues of a world, and their settings."""
    random = world.random
    world.queues = [f"q{number}" for number in range(random.choice((1, 1, 2, 3)))]
    world.consumable = list(world.queues)
    world.settings = {
        queue: {
            "max_attempts": random.choice((1, 2, 3, 5)),
            "lease_ms": random.choice((100, 1_000, 5_000, 20_000)),
            "retry_delay_ms": random.choice((0, 10, 500)),
            "retry_cap_ms": 2_000,
        }
        for queue in world.queues
    }


def make_people(world: World) -> None:
    """Draw those who are in every world."""
    random = world.random
    verbs = ["peek", "stats", "set"]
    verbs += [verb for verb in ("purge", "redrive", "delete") if random.random() < 0.15]
    ids = Random(world.seed)  # of its own: the other worlds stay as they are
    for verb in ("explain", "retime", "cancel"):
        verbs += [verb] * 4 if ids.random() < 0.3 else []
    verbs += world.uses.verbs()
    habits = Habits(goes=random.choice((0, 0.1)))
    world.clients = [
        Administrator(world, random.getrandbits(32), random.uniform(0.1, 2), verbs, habits)
    ]
    for number in range(random.randint(1, 3)):
        add(world, f"p{number}", publishes=random.choice((1, 3, 8)) * world.memory.backlog)
    for number in range(random.randint(0, 1 if world.memory.backlog > 1 else 3)):
        prefetch: Prefetch = random.choice((1, 2, "auto", 32))
        add(world, f"c{number}", publishes=random.choice((0, 0, 2)), prefetch=prefetch)


def make_borders(world: World, random: Random) -> None:
    """Let some queues be full; before there are people, who say at once what settings they want."""
    for queue in world.queues:
        if random.random() < 0.3:
            world.settings[queue]["max_messages"] = random.choice((3, 20, 200))


def make_waiting(world: World, random: Random) -> None:
    """Let some publish one message after the other, and handlers wait for them."""
    for number in range(random.choice((1, 1, 2))):
        habits = Habits(publishes=random.choice((20, 60)), timeout_ms=30_000)
        world.clients.append(
            SimulatedClient(world, f"s{number}", habits, random.getrandbits(32))
        )  # fmt: skip
    for number in range(random.choice((1, 2, 3))):
        habits = Habits(
            prefetch=random.choice((1, 1, 2)), work_us=random.choice((500, 5_000, 50_000)),
            handlers=random.choice((1, 1, 2)), blocking=random.random() < 0.4,
            impatience=random.choice((0, 0.1, 0.5)),
            patience_us=random.choice((200, 5_000, 300_000)), nacks=random.choice((0, 0.1)),
            releases=random.choice((0, 0.1)), blind=random.choice((0, 0.5)),
        )  # fmt: skip
        world.clients.append(
            SimulatedClient(world, f"w{number}", habits, random.getrandbits(32))
        )  # fmt: skip


def make_impatient(world: World, random: Random) -> None:
    """Let some clients change their minds."""
    for number in range(random.choice((1, 1, 2))):
        habits = Habits(
            work_us=random.choice((500, 50_000)), nacks=0.1, rejects=0.05, releases=0.1,
            goes=random.choice((0, 0.2)), blind=random.choice((0, 0.5)),
            timeout_ms=random.choice((500, 30_000)), **handlers(world, f"i{number}"),
        )  # fmt: skip
        world.clients.append(
            ImpatientClient(
                world, f"i{number}", habits, random.getrandbits(32),
                random.choice((1, 4, 12)), random.choice((0.002, 0.05, 1)),
            )
        )  # fmt: skip


def handlers(world: World, name: str) -> dict[str, Any]:
    """Draw how the handlers of a client wait, as habits; of its own: the other clients stay as they are."""
    random = Random(f"handlers of {world.seed} {name}")
    return {
        "handlers": random.choice((0, 1, 1, 3)),
        "blocking": random.random() < 0.4,
        "impatience": random.choice((0, 0.1, 0.5)),
        "patience_us": random.choice((200, 5_000, 300_000)),
    }


def add(world: World, name: str, *, publishes: float = 0, prefetch: Prefetch = 0) -> None:
    """Let one more client live."""
    random = world.random
    habits = Habits(
        publishes=publishes,
        most_in_batch=random.choice((1, 3, 10)),
        delayed=0 if world.plain else random.choice((0, 0, 0.3)),
        keyed=0 if world.plain else random.choice((0, 0, 0.5)),
        prefetch=prefetch,
        work_us=random.choice((500, 5_000, 50_000, 400_000)),
        nacks=random.choice((0, 0.1, 0.4)),
        rejects=random.choice((0, 0, 0.1)),
        releases=random.choice((0, 0, 0.2)),
        extends=random.choice((0, 0, 0.3)),
        repeats=random.choice((0, 0.5)),
        stale=random.choice((0, 0.5)),
        goes=random.choice((0, 0, 0.1, 0.5)),
        blind=random.choice((0, 0, 0.5)),
        timeout_ms=random.choice((300, 3_000, 30_000, 30_000)),
        declares=random.random() < 0.5,
        **handlers(world, name) if prefetch and not world.draining else {},
    )
    world.clients.append(SimulatedClient(world, name, habits, random.getrandbits(32)))
