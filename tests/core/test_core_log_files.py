"""The archivist between the core and the files of retained logs: what fails, is slow, or is found at a start."""

from __future__ import annotations

import gc

import pytest
from harness import World
from test_core_logs import archives, bodies, everything, group, log_of, make_log, offsets, read

from minibrokerd.core.model.retained import Forget, Piece
from minibrokerd.engine.archivist import SyncFailed
from minibrokerd.log.sizes import sizes_of
from minibrokerd.retained.memory_files import MemoryFiles


def test_a_failing_append_is_tried_again() -> None:
    """What is to be archived stands in the log meanwhile, over a crash, too; publishes are confirmed."""
    world = World()
    client = world.hello()
    make_log(client)
    world.files.errors += [OSError("full"), OSError("full")]
    assert client.publish("log", b"a")["op"] == "confirm"
    assert client.publish("log", b"b")["op"] == "confirm"
    assert len(archives(world)) == 1
    world.files.retry()
    assert world.queue("log").count() == 2
    world.files.retry()
    assert bodies(client) == [b"a", b"b"]
    assert world.queue("log").count() == 0
    world.files.errors.append(OSError("full"))
    client.publish("log", b"c")
    world.restart(clean=False)
    assert bodies(world.hello()) == [b"a", b"b", b"c"]
    assert not world.files.failed


def test_a_failed_sync_is_final() -> None:
    """Nothing is acknowledged: the next life archives it again."""
    world = World()
    client = world.hello()
    make_log(client)
    world.files.errors.append(SyncFailed("nobody knows"))
    client.publish("log", b"a")
    assert len(world.files.failed) == 1
    assert world.queue("log").count() == 1
    world.files.failed.clear()
    world.restart(clean=False)
    assert bodies(world.hello()) == [b"a"]


def test_groups_wait_for_room_and_readers_do_not() -> None:
    """While the log has no room for what groups get, it is kept for them; a moved one does not get it."""
    world = World()
    client = world.hello()
    make_log(client)
    world.files.has_room = False
    queue, other = group(client, "g"), group(client, "h")
    client.publish("log", b"a", b"b")
    assert [each.raw for each in read(client)["messages"]] == [b"a", b"b"]
    client.request(
        {"op": "log_group_seek", "queue": "log", "group": "h", "start": "offset", "at": 1}
    )
    assert world.queue(queue).count() == 0
    world.files.has_room = True
    world.files.retry()
    assert [m.body for m in client.receive_all(queue)] == [b"a", b"b"]
    assert [m.body for m in client.receive_all(other)] == [b"b"]


def test_what_was_read_is_not_kept_while_there_is_no_room() -> None:
    """A thousand groups would have a thousand such reads in memory, whatever its limit is; it is read again."""
    world = World()
    client = world.hello()
    make_log(client)
    client.publish("log", b"a", b"b")
    world.files.has_room = False
    before = _pieces()
    queues = [group(client, f"g{number}") for number in range(10)]
    world.files.retry()
    assert _pieces() == before
    assert not any(world.queue(queue).count() for queue in queues)
    world.files.has_room = True
    world.files.errors.append(OSError("not now"))
    world.files.retry()
    world.files.retry()
    for queue in queues:
        assert [m.body for m in client.receive_all(queue)] == [b"a", b"b"]


def _pieces() -> int:
    return sum(type(each) is Piece for each in gc.get_objects())


def test_a_start_deletes_what_is_of_no_log() -> None:
    """Directories of numbers that no log has: of one that was deleted, before a crash."""
    world = World()
    client = world.hello()
    make_log(client)
    client.publish("log", b"a")
    world.files.retained.get(99)
    world.restart(clean=False)
    assert world.files.kept() == [1]
    assert bodies(world.hello()) == [b"a"]


@pytest.mark.parametrize("op", ["purge", "delete"])
def test_files_are_forgotten_behind_the_sync(op: str) -> None:
    """Nothing goes before the record is safe that says so, and it goes without another batch then."""
    world = World()
    client = world.hello()
    make_log(client)
    client.publish("log", b"a")
    world.auto_sync = False
    if op == "purge":
        client.purge("log")
    else:
        client.delete("log", force=True)
    assert [work for work in world.files.asked if isinstance(work, Forget)]
    world.files.catch_up()
    assert world.files.retained.get(1).messages == 1
    world.sync()
    world.files.catch_up()
    assert world.files.kept() == ([1] if op == "purge" else [])
    assert op == "delete" or world.files.retained.get(1).messages == 0


@pytest.mark.parametrize("crash", [False, True])
def test_small_segments_take_what_is_fed_in_batches(crash: bool) -> None:
    """What is fed is cut so that a batch takes it; each batch has the position of its own."""
    world = World(sizes=sizes_of(64 * 1024))
    client = world.hello()
    make_log(client)
    for number in range(6):
        client.answered_below = client.sequence + 1
        client.publish("log", *[b"%d-%d" % (number, at) + b"x" * 900 for at in range(10)])
    found = everything(client)
    assert len(found) == 60
    world.auto_sync = False
    client.request({"op": "log_group_set", "queue": "log", "group": "g"})
    world.files.catch_up()
    world.close_batch()
    while world.closed and world.core.synced < world.closed[-1].number - 1:
        world.sync_one()
    if crash:
        world.restart(clean=False)
    world.auto_sync = True
    world.sync()
    world.files.catch_up()
    client = world.hello()
    if "log@g" not in world.store.queues:
        group(client)
    got: list[int] = []
    while messages := client.receive_all("log@g"):
        got += offsets(messages)
        client.settle("ack", *messages)
    assert got == [offset for offset, _, _ in found]
    world.check()


def test_a_group_is_fed_no_more_at_once_than_room_was_found_for() -> None:
    """What the files have as one frame is given in parts, and what is left of it is behind the group."""
    world = World(sizes=sizes_of(64 * 1024))
    client = world.hello()
    make_log(client)
    client.publish("log", *[bytes(1_000)] * 40)
    world.files.lag = True
    queue = world.queue(group(client))
    (feeder,) = log_of(world).feeders.values()
    steps = 0
    while queue.count() < 40:
        before = queue.count()
        world.files.work()
        steps += 1
        assert 0 < (queue.count() - before) * 1_000 < world.sizes.apply_bytes
        assert (feeder.lag(), feeder.is_at_end) == (40 - queue.count(), queue.count() == 40)
    assert steps > 1


def test_a_message_that_is_larger_than_the_segments_are_by_now_is_fed_once() -> None:
    """It stands in one batch with the position behind it, which is larger than others."""
    world = World(sizes=sizes_of(1024 * 1024))
    client = world.hello()
    make_log(client)
    client.publish("log", b"a", b"b" * 100_000, b"c")
    world.sizes = sizes_of(64 * 1024)
    world.restart()
    client = world.hello()
    world.auto_sync = False
    client.request({"op": "log_group_set", "queue": "log", "group": "g"})
    got: list[int] = []
    while len(got) < 3:
        world.files.catch_up()
        world.close_batch()
        world.sync_one()
        if world.store.queues["log@g"].count():
            world.restart(clean=False)
            world.auto_sync = True
            client = world.hello()
            messages = client.receive_all("log@g")
            got += offsets(messages)
            client.settle("ack", *messages)
            world.auto_sync = False
    assert got == [0, 1, 2]


def test_what_nobody_waits_for_pauses_while_somebody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of it is behind all else; the next one comes at once only where nothing else was asked for."""
    slices = 0

    def work_ahead(files: MemoryFiles) -> bool:
        nonlocal slices
        slices += 1
        return slices < 4

    world = World()
    client = world.hello()
    make_log(client)
    client.publish("log", b"x")
    monkeypatch.setattr(MemoryFiles, "work_ahead", work_ahead)
    world.files.lag = True
    world.files.retry()
    client.publish("log", b"y")
    while world.files.waiting:
        world.files.work()
    assert slices == 1
    world.files.retry()
    while world.files.waiting:
        world.files.work()
    assert slices == 4
