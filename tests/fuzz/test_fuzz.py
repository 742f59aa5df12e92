"""Bytes from outside raise nothing but what is promised, a sample of them: `make fuzz` goes on for longer."""

from __future__ import annotations

import os

import pytest
from corpus import HERE, built
from fuzz_one import MOST_BYTES, corpus_of
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import inputs
from targets import NAMES, signed
from watch import Watch

from minibrokerd.core.model.records import RECORD_TYPES
from minibrokerd.log import format as layout
from minibrokerd.log.format import Origin
from support.hypothesis_budget import fuzz_settings

EXAMPLES = int(os.environ.get("MINIBROKER_FUZZ_EXAMPLES") or 100)


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_raises_nothing(name: str) -> None:
    """Each input, its halves, and what follows its halves."""
    watch = Watch(name)
    for data in corpus_of(name):
        for some in (data, data[: len(data) // 2], data[len(data) // 2 :], data + data, data[:-1]):
            watch(some)
    assert not watch.figures.faults
    assert watch.figures.inputs >= 10


@pytest.mark.parametrize("name", NAMES)
def test_changed_inputs_raise_nothing(name: str) -> None:
    """The corpus changed where it matters, fields of every kind, and noise."""
    watch = Watch(name)
    corpus = corpus_of(name)

    @settings(fuzz_settings(), max_examples=EXAMPLES)
    @given(inputs(name, corpus) | st.binary(max_size=MOST_BYTES[name]))
    def run(data: bytes) -> None:
        watch(data)
        assert not watch.figures.faults

    run()


def test_the_corpus_is_what_its_sources_give() -> None:
    """After a change of a vector or of a record: run tests/fuzz/corpus.py."""
    frames = {name: data for name, data in built().items() if not name.startswith("log/")}
    assert frames == {name: (HERE / name).read_bytes() for name in frames}
    kept = {str(path.relative_to(HERE)) for path in HERE.rglob("*") if path.is_file()}
    assert kept == set(built())


def test_the_kept_logs_have_records_of_many_types() -> None:
    """What no log has is not fuzzed; the kept ones are read as they were written."""
    types: set[int] = set()
    for data in corpus_of("log"):
        assert signed(data) == data
        found = list(layout.scan(data + bytes(layout.ALIGNMENT), Origin(bytes(16), 1, 1), 1))
        assert len(found) > 3
        types |= {record.type for batch in found for record in batch.records}
    assert types >= set(RECORD_TYPES), set(RECORD_TYPES) - types


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("server", b"\x94" + b"\xc4\x00" * 4),
        ("client", b"\0\0\0\x01\xc0"),
        ("log", b"MBB1" + bytes(99)),
    ],
)
def test_an_exception_that_is_not_promised_is_found(
    name: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch is worth nothing if it takes these: a decoder that has lost its except."""

    class Never(Exception):
        pass

    for place in ("targets.BadFrame", "targets.ProtocolError", "targets.LogError"):
        monkeypatch.setattr(place, Never)
    watch = Watch(name)
    watch(data)
    assert watch.figures.uncaught == 1
    assert watch.figures.faults[0][0] == f"{name}:{data.hex()}"
