"""Chords: a queue of each one, in which every part of the header is a message that stands there once.

A part is stored under a unique key, its task and its place, so one that runs twice counts once, whoever was killed
when. How many there are to be, and who has found them complete, are messages of the same queue that are due in
a hundred years: so `ready` in its counters is how many parts there are, and deleting it takes all along. Its
own end comes by `delete_unused_ms`, if the chord never does.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import Any, Final, NamedTuple

from celery import states
from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult, allow_join_result
from celery.utils.functional import _regen
from celery.utils.log import get_logger
from kombu.utils.encoding import ensure_bytes

from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import TooLarge, UnknownQueue
from minibroker.contract.limits import MAX_QUEUE_NAME_CHARS
from minibroker.contrib.celery.named_values import STORE_S, key_of
from minibroker.contrib.celery.names import name_of
from minibroker.contrib.celery.once import once
from minibroker.contrib.celery.too_large import ResultTooLarge, shortened

PREFIX: Final = "celery-chord-"
NEVER_S: Final = 100 * 365 * 86_400.0
PAGE: Final = 1_000
# Of one run: Celery says twice that it was over its hard time limit, and the chord may have ended in between.
COUNTED: Final = "minibroker_counted"
SIZE, MORE, NESTED, CLAIM = b"size ", b"more", b"nested", b"claim "

logger = get_logger(__name__)


class Standing(NamedTuple):
    """What a chord is at, as its notes say."""

    run: MessageId  # of its size: another one for each time that it is applied
    total: int
    nested: bool  # its results are those of a group that was saved


class Chord:
    """The queue of one chord."""

    def __init__(
        self, broker: Any, prefix: str, group_id: str, kept_s: float, within_s: float
    ) -> None:
        self._queue = broker.queue(_name_of(prefix, group_id))
        self._kept_ms = round(kept_s * 1_000)
        self._within_s = within_s

    def _note(self, name: str, body: bytes, unique: str = "replace") -> Any:
        return self._queue.publish(
            body, unique_key=f"note {name}", unique=unique, delay=NEVER_S, timeout=self._within_s
        )

    def expect(self, size: int) -> None:
        """Say how many parts there are to be."""
        self._kept()
        self._note("size", SIZE + str(size).encode())

    def expect_more(self) -> None:
        """Say that there is to be one more."""
        self._queue.publish(MORE, delay=NEVER_S, timeout=self._within_s)

    def nests(self) -> None:
        """Say that its results are those of a group that was saved."""
        self._kept()
        self._note("nested", NESTED)

    def _kept(self) -> None:
        if self._kept_ms:
            self._queue.set(delete_unused_ms=self._kept_ms)

    def add(self, member: str, part: bytes) -> None:
        """Store a part; one that stands there stays."""
        self._queue.publish(part, unique_key=key_of(f"part {member}"), timeout=self._within_s)

    def complete(self) -> Standing | None:
        """Return what it is at, if all parts are there; UnknownQueue if it has ended."""
        run, total, nested = None, 0, False
        for note in self._pages("DELAYED"):
            if note.raw.startswith(SIZE):
                run, total = note.id, total + int(note.raw[len(SIZE) :])
            elif note.raw == MORE:
                total += 1
            elif note.raw == NESTED:
                nested = True
        if run is None:  # it is not known yet; or all has ended, and this is a part that ran again
            self._kept()
            return None
        counters = self._queue.stats(timeout=self._within_s)["queues"][self._queue.name]
        return Standing(run, total, nested) if counters["ready"] == total else None

    def claim(self, member: str, run: MessageId) -> bool:
        """Return whether it is for this part to go on with what comes after.

        It is if nobody has done so, or this part has: then who ran it was killed, and another one runs it again.
        UnknownQueue if all has ended.
        """
        claimer = CLAIM + member.encode()
        confirm = self._note("claim", claimer, "drop")
        if (
            confirm.origin != run.origin
        ):  # it ended meanwhile, and this is a queue that the claim made
            self._kept()
            return False
        if not confirm.duplicate:
            return True
        return any(note.raw == claimer for note in self._pages("DELAYED"))

    def parts(self, total: int) -> list[bytes]:
        """Return all parts, in the order in which they came; UnknownQueue if it ended meanwhile."""
        parts = [part.raw for part in self._pages("READY")]
        if len(parts) != total:
            raise UnknownQueue(f"{len(parts)} of {total} parts are there")
        return parts

    def _pages(self, state: str) -> Any:
        page = self._queue.peek(PAGE, state=state, timeout=self._within_s)
        yield from page
        while page.next:
            page = self._queue.peek(PAGE, state=state, after=page.next, timeout=self._within_s)
            yield from page

    def end(self) -> None:
        """Let nothing of it be left."""
        with suppress(UnknownQueue):
            self._queue.delete(force=True, timeout=self._within_s)


class Chords:
    """What a backend of Celery has of chords."""

    app: Any
    broker: Any
    options: Any
    chord_expires: Any

    def _chord(self, group_id: str) -> Chord:
        prefix = self.options.get("chord_prefix", PREFIX)
        return Chord(self.broker, prefix, str(group_id), self.chord_expires or 0, STORE_S)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Say how many parts the header has; a chord that is applied again begins anew."""
        self._chord(group_id).expect(chord_size)

    def add_to_chord(self, group_id: str, result: Any) -> None:
        """Let the header have one part more."""
        self._chord(group_id).expect_more()

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Save the group of a header that has groups in it: its results are to keep that form."""
        if isinstance(header_result_args[1], _regen):
            return
        header = self.app.GroupResult(*header_result_args)
        if any(isinstance(each, GroupResult) for each in header.results):
            header.save(backend=self)
            self._chord(header.id).nests()

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Count a part; the last one goes on with the body."""
        task_id, group_id, index = request.id, request.group, request.group_index
        if not group_id or not task_id or getattr(request, COUNTED, False):
            return
        self._count(request, state, result, group_id, task_id, index)
        setattr(request, COUNTED, True)

    def _count(
        self, request: Any, state: str, result: Any, group_id: str, task_id: str, index: Any
    ) -> None:
        chord, member = self._chord(group_id), f"{task_id}:{index}"
        # It ends when its body is published, so this part ran twice; or by itself, if it takes too long.
        with suppress(UnknownQueue):
            self._add(chord, member, index, task_id, state, result)
            standing = chord.complete()
            if standing is None or not chord.claim(member, standing.run):
                return
            callback = maybe_signature(request.chord, app=self.app)
            with once(f"chord-{standing.run}"):
                self._go_on(chord, standing, group_id, callback)
            chord.end()

    def _add(
        self, chord: Chord, member: str, index: Any, task_id: str, state: str, result: Any
    ) -> None:
        backend: Any = self
        value = backend.encode_result(result, state)
        try:
            chord.add(member, ensure_bytes(backend.encode([index, task_id, state, value])))
        except TooLarge as error:
            if state not in states.EXCEPTION_STATES:
                raise ResultTooLarge.of(error) from error
            value = shortened(backend, value)
            chord.add(member, ensure_bytes(backend.encode([index, task_id, state, value])))

    def _go_on(self, chord: Chord, standing: Standing, group_id: str, callback: Any) -> None:
        backend: Any = self
        try:
            results = (
                self._joined(group_id)
                if standing.nested
                else self._results(chord.parts(standing.total))
            )
        except UnknownQueue:
            raise
        except ChordError as error:
            logger.exception("Chord %r raised: %r", group_id, error)
            backend.chord_error_from_stack(callback, error)
            return
        except Exception as error:  # whatever it is, the body has failed by it: as Celery does
            logger.exception("Chord %r raised: %r", group_id, error)
            backend.chord_error_from_stack(callback, _because(f"Join error: {error!r}", error))
            return
        publish = getattr(self.app.amqp, "_retry_publish", _call)
        try:
            publish(callback.delay, results)
        except Exception as error:
            logger.exception("Chord callback for %r raised: %r", group_id, error)
            backend.chord_error_from_stack(callback, _because(f"Callback error: {error!r}", error))

    def _joined(self, group_id: str) -> Any:
        header = GroupResult.restore(group_id, app=self.app, backend=self)
        if header is None:
            raise ChordError(f"GroupResult {group_id} no longer exists")
        header.on_ready()  # all of it is there: it waits for nothing
        with allow_join_result():
            return header.join_native(
                timeout=self.app.conf.result_chord_join_timeout, propagate=True
            )

    def _results(self, raw: list[bytes]) -> list[Any]:
        backend: Any = self
        parts = [backend.decode(part) for part in raw]
        parts.sort(key=lambda part: (part[0] is None, part[0] or 0))
        return [self._result(*part[1:]) for part in parts]

    def _result(self, task_id: str, state: str, value: Any) -> Any:
        backend: Any = self
        if state in states.EXCEPTION_STATES:
            value = backend.exception_to_python(value)
        if state in states.PROPAGATE_STATES:
            raise _because(f"Dependency {task_id} raised {value!r}", value)
        return value


def _name_of(prefix: str, group_id: str) -> str:
    """Return the name of the queue of a chord."""
    name = name_of(prefix + group_id)
    if len(name) <= MAX_QUEUE_NAME_CHARS:
        return name
    return prefix + sha256(group_id.encode(errors="surrogatepass")).hexdigest()


def _because(text: str, cause: Any) -> ChordError:
    error = ChordError(text)
    if isinstance(cause, Exception):
        error.__cause__ = cause
    return error


def _call(function: Any, *args: Any) -> Any:
    return function(*args)
