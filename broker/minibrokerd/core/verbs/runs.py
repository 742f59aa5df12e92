"""Run columns and the columns of errors, as they stand in a frame: nothing in them is believed."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.wire import RUN
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.refusals import Broken, Refused

_COUNT_WORD: Final = 5  # of the six words of a run: its count


def slice_of_runs(part: Any, columns: memoryview, lengths: memoryview) -> tuple[int, int, int]:
    """Return how many bytes of columns, lengths and blob a part of runs takes, which start these columns.

    Raises:
        Broken: they are shorter than that.
    """
    used = RUN.size * part.runs
    for _ in range(part.row.texts):
        used += _read_texts(columns[used:], part.runs, 0)[1]
    if used > len(columns):
        raise Broken(f"{part.runs} runs need {used} bytes, the columns have {len(columns)}")
    return used, 0, 0


def read_runs(data: memoryview, count: int) -> list[Run]:
    """Return the entries of a run column that starts `data`.

    Raises:
        Broken: the column is shorter than `count` entries, names more messages than one frame may, or none.
    """
    size = count * RUN.size
    if len(data) < size:
        raise Broken(f"{count} runs need {size} bytes, the columns have {len(data)}")
    if count == 1:
        runs = list(RUN.iter_unpack(data[:size]))
        _, _, first, messages = runs[0]
        if not 0 < messages <= limits.MAX_RUNS_PER_FRAME or first + messages > 2**64:
            raise Broken("a run names no message, too many, or goes beyond the largest sequence")
        return runs
    # The counts alone first: 10,000 tuples for a frame that is refused would cost 5 ms.
    words = array("I")
    words.frombytes(data[:size])
    if sum(words[_COUNT_WORD :: RUN.size // 4]) > limits.MAX_RUNS_PER_FRAME:
        raise Broken(f"the runs of one part name more than {limits.MAX_RUNS_PER_FRAME} messages")
    runs = list(RUN.iter_unpack(data[:size]))
    if any(not messages or first + messages > 2**64 for _, _, first, messages in runs):
        raise Broken("a run names no message, or goes beyond the largest sequence")
    return runs


def read_ids(frame: Frame, part: Any) -> list[Run]:
    """Return the run column of a request that is about single messages, or of all when it has none.

    Raises:
        Broken: the columns do not hold what the part says.
    """
    if len(frame.columns) != part.runs * RUN.size:
        raise Broken(f"{len(frame.columns)} bytes of columns came for {part.runs} runs")
    return read_runs(frame.columns, part.runs) if part.runs else []


def read_errors(data: memoryview, count: int) -> tuple[Iterator[tuple[str, str]], int]:
    """Return (class, text) for each run from the two error columns that start `data`, and their size.

    Each is cut to its limit and decoded when it is asked for: 10,000 of them must not stand there at once.

    Raises:
        Broken: the columns are too short.
    """
    names, used = _read_texts(data, count, limits.MAX_ERROR_CLASS_BYTES)
    texts, more = _read_texts(data[used:], count, limits.MAX_ERROR_TEXT_BYTES)
    return zip(names, texts, strict=True), used + more


def read_values(data: memoryview, count: int, most_bytes: int) -> tuple[list[bytes], int]:
    """Return the entry of each run in the string column that starts `data`, and its size.

    Raises:
        Broken: the column is too short.
        Refused: `too_large`, an entry exceeds `most_bytes`.
    """
    head = 4 * count
    lengths = array("I")
    lengths.frombytes(data[:head])
    end = head + sum(lengths)
    if end > len(data) or len(lengths) < count:
        raise Broken(f"a string column of {count} entries has {len(data)} bytes")
    if max(lengths, default=0) > most_bytes:
        raise Refused("too_large", f"{max(lengths)} bytes of one run exceed {most_bytes}")
    starts = accumulate(lengths, initial=head)
    return [bytes(data[at : at + size]) for at, size in zip(starts, lengths, strict=False)], end


def _read_texts(data: memoryview, count: int, most_bytes: int) -> tuple[Iterator[str], int]:
    head = 4 * count
    if len(data) < head:
        raise Broken(f"a string column of {count} entries is {len(data)} bytes long")
    lengths = array("I")
    lengths.frombytes(data[:head])
    end = head + sum(lengths)
    if end > len(data):
        raise Broken(f"the lengths of a string column exceed it by {end - len(data)} bytes")
    starts = accumulate(lengths, initial=head)
    return (
        bytes(data[at : at + min(length, most_bytes)]).decode(errors="replace")
        for at, length in zip(starts, lengths, strict=False)
    ), end
