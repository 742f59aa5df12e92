"""The short version of `make sim WITH=stream`: worlds whose broker has its log in a stream, and careless logs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from stream_sim import StreamWorld

from minibrokerd.replicated.appender import Appender
from minibrokerd.replicated.leading import Fence
from minibrokerd.replicated.stream import Entry

SEED = 40_000


def world(seed: int) -> StreamWorld:
    """Return a world with what its seed draws, that has run."""
    made = StreamWorld(seed, borders=True, capabilities=None)
    made.run()
    return made


def caught(worlds: int, *laws: str) -> list[str]:
    """Return what is found of these laws in the first world in which something is."""
    for seed in range(SEED, SEED + worlds):
        violations = StreamWorld(seed).run().checker.violations
        if found := [text for text in violations if text.partition(":")[0] in laws]:
            return found
    return []


@pytest.mark.parametrize("seed", range(SEED, SEED + 5))
def test_nothing_is_violated_in_a_world_on_a_stream(seed: int) -> None:
    """All invariants; alone: make sim WITH=stream SEED=... WORLDS=1 TRACE=1."""
    assert world(seed).checker.violations == []


@pytest.mark.parametrize("seed", range(SEED, SEED + 1))
def test_a_world_on_a_stream_is_one_history(seed: int) -> None:
    """Else a seed that fails could not be run again."""
    first, again = world(seed), world(seed)
    assert first.digest == again.digest
    assert first.stream.entries == again.stream.entries


def test_a_log_that_confirms_before_the_stream_does_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put = Appender.put

    def hasty(appender: Appender, parts: list[bytes], done: Callable[[int], object]) -> None:
        put(appender, parts, lambda size: None)

        async def confirm() -> None:
            done(sum(map(len, parts)))

        appender._spawn(confirm())

    monkeypatch.setattr(Appender, "put", hasty)
    assert caught(40, "I1", "I7")


def test_a_start_that_reads_what_some_server_has_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has claimed the log, and does not read the rest."""
    monkeypatch.setattr(Fence, "read", lambda fence, first, upto: _nothing())
    assert caught(80, "I1", "I7", "I12", "E1", "exception")


async def _nothing() -> AsyncIterator[list[Entry]]:
    for entries in list[list[Entry]]():
        yield entries
