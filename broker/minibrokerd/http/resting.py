"""The API of pauses: a queue that hands nothing out, workers that get nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from minibroker.session.pause_wishes import Pause
from minibrokerd.core.model.pauses import QUEUE
from minibrokerd.http.requests import Ask, Failure


class PauseView(msgspec.Struct):
    """A pause: of a `queue`; or of workers by name (empty: all), and `below` a version (empty: all)."""

    queue: str
    worker: str
    below: str
    since_unix_ms: int
    until_unix_ms: int  # 0: until it is resumed
    deadline_unix_ms: int  # 0: there is none
    by: str
    held: int  # of the queue, as are those that are begun
    begun: int
    in_hand: int  # with paused workers
    clients: int  # how many these are


class PauseList(msgspec.Struct):
    """All that is paused."""

    pauses: list[PauseView]


class NewPause(msgspec.Struct, forbid_unknown_fields=True):
    """How long a queue rests: for so long, until a time, or until it is resumed."""

    for_ms: int = 0
    until_unix_ms: int = 0


class NewWorkerPause(NewPause, kw_only=True, forbid_unknown_fields=True):
    """Which workers rest, and after how long what they still have goes back (0: never)."""

    worker: str = ""
    below: str = ""
    deadline_ms: int = 0


class Resumed(msgspec.Struct):
    """Whether it was paused."""

    resumed: bool


async def list_pauses(ask: Ask) -> PauseList:
    """Return all that is paused."""
    return PauseList([view_of(each) for each in await ask.client.pauses()])


async def pause_of(ask: Ask) -> PauseView | None:
    """Return the pause of the queue that the path names; None: it goes on."""
    if ask.subject.store.pauses.get((QUEUE, ask.queue().number, "")) is None:
        return None
    found = (await list_pauses(ask)).pauses
    return next((each for each in found if each.queue == ask.queue_name), None)


async def pause_queue(ask: Ask) -> PauseView:
    """Hand out nothing of a queue."""
    wish = await ask.body(NewPause)
    queue = ask.client.queue(ask.queue_name)
    found = await queue.pause(for_=_span(wish.for_ms), until=_until(wish))
    ask.changed("pause", queue=ask.queue_name)
    return view_of(found)


async def resume_queue(ask: Ask) -> Resumed:
    """Let a queue go on."""
    done = await ask.client.queue(ask.queue_name).resume()
    ask.changed("resume", queue=ask.queue_name)
    return Resumed(done)


async def pause_workers(ask: Ask) -> PauseView:
    """Let workers get nothing."""
    wish = await ask.body(NewWorkerPause)
    found = await ask.client.pause_workers(
        wish.worker,
        below=wish.below,
        for_=_span(wish.for_ms),
        until=_until(wish),
        deadline=_span(wish.deadline_ms),
    )
    ask.changed("pause_workers", worker=wish.worker, below=wish.below)
    return view_of(found)


async def resume_workers(ask: Ask) -> Resumed:
    """Let workers go on that were paused under a name."""
    worker = ask.text("worker")
    done = await ask.client.resume_workers(worker)
    ask.changed("resume_workers", worker=worker)
    return Resumed(done)


def view_of(pause: Pause) -> PauseView:
    """Return a pause as the API shows it."""
    return PauseView(
        pause.queue,
        pause.worker,
        pause.below,
        _unix_ms(pause.since),
        _unix_ms(pause.until),
        _unix_ms(pause.deadline),
        pause.by,
        pause.held,
        pause.begun,
        pause.in_hand,
        pause.clients,
    )


def _span(ms: int) -> float | None:
    return ms / 1_000 if ms else None


def _until(wish: NewPause) -> datetime | None:
    if wish.for_ms and wish.until_unix_ms:
        raise Failure(400, "bad_value", "a pause ends after a time, or at one; both came")
    try:
        at = datetime.fromtimestamp(wish.until_unix_ms / 1_000, UTC)
    except (OverflowError, ValueError, OSError) as error:  # of no year that there is
        raise Failure(400, "bad_value", f"until_unix_ms is {wish.until_unix_ms}") from error
    return at if wish.until_unix_ms else None


def _unix_ms(time: datetime | None) -> int:
    return 0 if time is None else round(time.timestamp() * 1_000)
