"""When memory is given back."""

from __future__ import annotations

import pytest

from minibrokerd import memory

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("hot_mib", "trims"),
    [
        ([0, 1, 10, 0], 0),  # too little to be worth it
        ([64, 48, 20], 0),  # not much less yet
        ([64, 15, 14, 10], 1),
        ([64, 15, 10, 0, 0], 2),  # once in between, and once at the end
        ([64, 0, 0, 64, 0], 2),
    ],
)
def test_memory_is_given_back_when_a_backlog_has_gone(hot_mib: list[int], trims: int) -> None:
    trimmer = memory.Trimmer()
    calls: list[int] = []

    def trim(pad: int) -> int:
        calls.append(pad)
        return 1

    trimmer._trim = trim
    for mib in hot_mib:
        trimmer.look(mib * MIB)
    assert len(calls) == trims
