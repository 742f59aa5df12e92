"""The parts of a frame: all are checked, then all are applied, so a frame that is refused leaves no trace.

A frame that publishes and does more, or says so, is a step: all of it happens, or nothing. Its records are in one
batch, which the log has as a whole or not at all; and its settlements must hold what they name, where those of
another frame say what they lost and do the rest. Last it gets its answer, or a share of one.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from minibroker.contract import limits
from minibroker.contract.wire import pack_runs
from minibrokerd.core.model.claims import Claims
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.inputs import NEEDS_ROOM, Frame
from minibrokerd.core.model.noting import bytes_of_ends
from minibrokerd.core.model.refusals import Broken, Refused
from minibrokerd.core.model.sessions import Connection, Result
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.chaining import check_count, named_by
from minibrokerd.core.verbs.settling import Settlement
from minibrokerd.core.verbs.uniqueness import bytes_of_names
from minibrokerd.log.sizes import PUBLISH_OVERHEAD_BYTES

SETTLED: Final = {"lost": 0}  # the result of a part that settled all that it names


def apply_parts(store: Store, frame: Frame) -> tuple[list[Result], bytes, int]:
    """Check all parts, then apply them: (one result for each, the lost runs packed, what the answer rests on).

    Raises:
        Broken: a part is not what the protocol says.
        Refused: a part may not be applied now. In both cases nothing was changed.
    """
    if frame.slices:
        return _apply_several(store, frame)
    part = frame.parts[0]
    row = part.row
    if row.check is None:
        raise Broken(f"{row.op} has no place in a frame with a sequence")
    result, lost, rests_on = row.apply(row.check(store, frame, part, frame, None))
    return [result], pack_runs(lost) if lost else b"", rests_on


def confirm(store: Store, frame: Frame, results: list[Result], lost: bytes, rests_on: int) -> None:
    """Answer a frame alone, by its sequence or its request number."""
    header: dict[str, Any] = {"op": "confirm", "results": results}
    if frame.sequence is not None:
        header["sequence"] = frame.sequence
    else:
        header["request"] = frame.request
    store.send(frame.connection, rests_on, header, lost)


def confirm_with_others(
    store: Store, connection: Connection, sequence: int, results: list[Result], rests_on: int
) -> None:
    """Answer a frame that lost nothing; if it settles only, its answer may be that of the frames before it.

    That one has not left if it rests on the same batch: it leaves when the batch is synced, and what comes then
    rests on a later one.
    """
    earlier, is_plain = connection.confirm, results == [SETTLED] * len(results)
    if (
        is_plain
        and earlier is not None
        and earlier.rests_on == rests_on
        and connection.confirmed + 1 == sequence
    ):
        earlier.header["through"] = connection.confirmed = sequence
        earlier.header["results"] = ()
        return
    store.send(connection.id, rests_on, {"op": "confirm", "results": results, "sequence": sequence})
    connection.confirm = store.effects.outgoing[-1] if is_plain else None
    connection.confirmed = sequence


def _apply_several(store: Store, frame: Frame) -> tuple[list[Result], bytes, int]:
    if sum(getattr(part, "runs", 0) for part in frame.parts) > limits.MAX_RUNS_PER_FRAME:
        raise Broken(f"a frame has more than {limits.MAX_RUNS_PER_FRAME} runs")
    claims = Claims(is_step=frame.is_step)
    if frame.needs == NEEDS_ROOM:  # something is published
        _check_after(store, frame)
    if claims.is_step:
        _check_step(store, frame)
        claims.add_bytes(bytes_of_names(frame))
    works = _check_parts(store, frame, claims)
    results: list[Result] = []
    lost: list[Run] = []
    rests_on = 0
    chains = store.chains
    published = chains.published = []
    is_chained = claims.is_step and any(getattr(part, "after_step", 0) for part in frame.parts)
    for work in works:
        if isinstance(work, tuple) and work[-1] is not None:
            chains.expect(work[-1].ids)  # an ack may stand before it
    for part, work in zip(frame.parts, works, strict=True):
        result, lost_of_part, rests_of_part = part.row.apply(work)
        results.append(result)
        if "first" in result:
            run = (0, result["origin"], result["first"], part.count)
            published.append(run)
            if is_chained:
                chains.expect((run[1], run[2] + at) for at in range(run[3]))
        lost += lost_of_part
        rests_on = max(rests_on, rests_of_part)
    chains.expect_no_more()
    return results, pack_runs(lost) if lost else b"", rests_on


def _check_parts(store: Store, frame: Frame, claims: Claims) -> list[Any]:
    """Return what each part comes to; what a step ends is known before what it publishes is looked at."""
    works: list[Any] = [None] * len(frame.parts)
    publishes = []
    for at, (part, own) in enumerate(zip(frame.parts, frame.slices, strict=True)):
        if part.row.needs == NEEDS_ROOM:
            publishes.append((at, part, own))
        else:
            works[at] = part.row.check(store, frame, part, own, claims)
    settlements = [work for work in works if isinstance(work, Settlement)]
    if sum(run[3] for work in settlements for run in work.runs) > limits.MAX_RUNS_PER_FRAME:
        raise Broken(f"a frame names more than {limits.MAX_RUNS_PER_FRAME} messages")
    if claims.is_step and settlements:
        claims.add_bytes(_check_ends(store, frame, settlements))
    for at, part, own in publishes:
        works[at] = part.row.check(store, frame, part, own, claims)
    return works


def _check_step(store: Store, frame: Frame) -> None:
    """Check that the records of a step can be one batch.

    Raises:
        Broken: a part of it has no place there, or it has more messages than a frame may.
        Refused: `too_large`.
    """
    others = [part.row.op for part in frame.parts if not part.row.steps]
    if others:
        raise Broken(f"{others[0]} has no place in a step")
    count = sum(part.count for part in frame.parts if part.row.needs == NEEDS_ROOM)
    if count > limits.MAX_MESSAGES_PER_FRAME:
        raise Broken(f"a frame has more than {limits.MAX_MESSAGES_PER_FRAME} messages")
    if _step_bytes(frame) > store.sizes.apply_bytes:
        _refuse_size(store, frame)


def _step_bytes(frame: Frame) -> int:
    """Return how many bytes of a batch a step takes at the most, without the notes of what ends by it."""
    # Beside the record of each part, one of each result.
    texts: int = sum(part.runs for part in frame.parts if part.row.texts == 1)
    records = len(frame.parts) + texts
    return frame.size + PUBLISH_OVERHEAD_BYTES * records


def _check_ends(store: Store, frame: Frame, settlements: list[Settlement]) -> int:
    """Check that what is noted of the messages that a step settles has room in its batch; return that in bytes.

    Raises:
        Refused: `too_large`.
    """
    runs = [run for work in settlements for run in work.runs]
    noted = bytes_of_ends(store, runs)
    if _step_bytes(frame) + noted > store.sizes.apply_bytes:
        _refuse_size(store, frame)
    return noted + _step_bytes(frame) - frame.size - PUBLISH_OVERHEAD_BYTES * len(frame.parts)


def _refuse_size(store: Store, frame: Frame) -> NoReturn:
    raise Refused(
        "too_large",
        f"a frame of {frame.size} bytes in {len(frame.parts)} parts exceeds {store.sizes.apply_bytes} "
        "with its records; nothing was stored",
    )


def _check_after(store: Store, frame: Frame) -> None:
    """Check that the messages of parts may wait for so many; what others come after has an id of its own.

    Raises:
        Refused: `bad_value`, `limit_reached`.
    """
    ahead = most = total = 0
    known = False  # whether one so far may be there already
    for part in frame.parts:
        if not hasattr(
            part, "after"
        ):  # as what settles; and what is routed: nothing comes after that
            continue
        if part.after_step and known:
            raise Refused(
                "bad_value",
                "others come after it in its step: it has no unique key, and no dedupe id",
            )
        if part.after or part.after_step:
            count = named_by(part.after) + (ahead if part.after_step else 0)
            most, total = max(most, count), total + count
        known = known or bool({"unique_key", "dedupe_id"} & set(part.columns or ()))
        ahead += part.count
    if total:
        check_count(store, most, total)
