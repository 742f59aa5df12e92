"""The archivist and compaction: one log at a time, and a pass that takes long is not begun anew."""

from __future__ import annotations

import pytest
from core_client import Client
from harness import World
from test_core_logs import make_log

from minibrokerd.retained.compacting import CompactionResult
from minibrokerd.retained.memory_files import MemoryFiles


class Passes:
    """Compactions that go on until a test lets them end: the logs that began one, and what comes of them."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.begun: list[str] = []
        self.results: list[CompactionResult] = []
        passes = self

        def begin(files: MemoryFiles, *_: object, **__: object) -> CompactionResult:
            names = [
                log.queue.name
                for number, log in world.store.retained.logs.items()
                if world.files.retained.get(number) is files
            ]
            passes.begun += names
            passes.results.append(CompactionResult())
            return passes.results[-1]

        patch.setattr(MemoryFiles, "begin_compaction", begin)

    def look(self, client: Client, *errors: OSError) -> None:
        """Let both logs grow, and time pass, and the archivist look, whose first works fail so."""
        for name in ("a", "b"):
            client.publish(name, b"x", key="k")
        self.world.advance(1_000)
        self.world.files.errors += errors
        self.world.files.retry()


def begun(patch: pytest.MonkeyPatch) -> tuple[World, Client, Passes]:
    """Return two logs, of which one is being compacted."""
    world = World()
    client = world.hello()
    passes = Passes(world, patch)
    for name in ("a", "b"):
        make_log(client, name, compaction_ms=1_000)
    for _ in range(3):
        passes.look(client)
    assert passes.begun == ["a"]
    return world, client, passes


def test_a_pass_that_takes_long_is_not_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes, and though the log grows; then the other log has its turn."""
    _, client, passes = begun(monkeypatch)
    for _ in range(10):
        passes.look(client)
    assert passes.begun == ["a"]
    for turn in range(1, 4):
        passes.results[-1].ended = True
        passes.look(client)
        assert passes.begun == ["a", "b", "a", "b"][: turn + 1]


@pytest.mark.parametrize("how", ["deleted", "failed"])
def test_a_pass_that_will_not_end_holds_nobody_up(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log was deleted, or the disk failed: the other one is compacted."""
    _, client, passes = begun(monkeypatch)
    if how == "deleted":
        client.request({"op": "queue_delete", "queue": "a", "force": 1})
    else:
        passes.look(client, OSError("full"))
    for _ in range(2):
        passes.look(client)
    assert passes.begun == ["a", "b"]


def test_a_pass_for_each_moment_is_refused() -> None:
    """0 is none; 1,000 is the least."""
    client = World().hello()
    assert client.set("log", kind="log", compaction_ms=999)["code"] == "bad_value"
    assert client.set("log", kind="log", compaction_ms=0)["op"] == "reply"
    assert client.set("log", kind="log", compaction_ms=1_000)["op"] == "reply"
