"""What a history keeps of an error: a class to group failures by, and a text that says where it came from.

    RuntimeError
    card 17 <- ConnectionRefusedError: payments at 10.0.0.7 (shop/booking.py:12 in charge)

A group is told by its leaves, a cause stands behind ` <- `, notes behind the text, and last the innermost place in
the application's own code. The error is the application's: its text, its notes or its class may raise, lie or be
a megabyte long. Whatever they do, something is returned, and nothing of it exceeds the bounds of limits.py.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from types import CodeType, TracebackType
from typing import Any, Final, cast

from minibroker.contract import limits

MAX_LEAVES: Final = 8  # of a group; how many more there are is said
MAX_CAUSES: Final = 8
MAX_NOTES: Final = 4
# Leaves of a group that are counted, frames of a traceback that are looked at.
MAX_LOOKS: Final = 1_000
ELLIPSIS: Final = " … "

_LIBRARY: Final = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib"))
_INSTALLED: Final = ("site-packages", "dist-packages")
_OURS: Final = __file__[: -len("error_text.py")]

# What a class or a subclass may have replaced is read past it: `isinstance` would ask `__class__`, too.
_name_of = type.__dict__["__name__"].__get__
_members_of = BaseExceptionGroup.__dict__["exceptions"].__get__
_cause_of = BaseException.__dict__["__cause__"].__get__
_context_of = BaseException.__dict__["__context__"].__get__
_is_quiet = BaseException.__dict__["__suppress_context__"].__get__
_traceback_of = BaseException.__dict__["__traceback__"].__get__


def describe(error: BaseException | str | None) -> tuple[bytes, bytes]:
    """Return class and text of an error as a history keeps them, in UTF-8; nothing that the error does is raised.

    A text alone has no class; None has neither. The class of a group with one leaf is that of the leaf.
    """
    if error is None:
        return b"", b""
    if not issubclass(type(error), BaseException):
        return b"", cut_middle(cast(str, error), limits.MAX_ERROR_TEXT_BYTES)
    error = cast(BaseException, error)
    leaves, more = _leaves(error)
    shown = leaves[0] if len(leaves) == 1 and not more else error
    if shown is not error or not issubclass(type(error), BaseExceptionGroup):
        text = _with_causes(shown)
    else:
        text = "; ".join(f"{_class(leaf)}: {_with_causes(leaf)}" for leaf in leaves)
        least = "at least " if more + MAX_LEAVES >= MAX_LOOKS else ""
        text += f"; and {least}{more} more" if more else ""
    text = cut_middle(text, limits.MAX_ERROR_TEXT_BYTES).decode()
    place = _place(_traceback_of(shown)) or _place(_traceback_of(error))
    room = limits.MAX_ERROR_TEXT_BYTES - len(place.encode("utf-8", "replace"))
    text = f"{cut_middle(text, room).decode()}{place}".strip()
    return (
        cut(_class(shown), limits.MAX_ERROR_CLASS_BYTES),
        cut(text, limits.MAX_ERROR_TEXT_BYTES),
    )


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in a group and in the groups of it; an error that is no group is its own leaf."""
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if issubclass(type(each), BaseExceptionGroup):
            waiting += reversed(_members_of(each))
        else:
            yield each


def cut(text: str, size: int) -> bytes:
    """Return `text` as at most `size` bytes of UTF-8, whole characters only."""
    data = str.encode(str.__getitem__(text, slice(size)), "utf-8", "replace")
    return data if len(data) <= size else data[:size].decode("utf-8", "ignore").encode()


def cut_middle(text: str, size: int) -> bytes:
    """Return `text` as at most `size` bytes of UTF-8: both ends of it, when it is longer."""
    length = str.__len__(text)
    head, tail = str.__getitem__(text, slice(size)), ""
    if length > size:
        tail = str.__getitem__(text, slice(length - size, length))
    data = str.encode(head, "utf-8", "replace")
    if not tail and len(data) <= size:
        return data
    end = str.encode(tail or text, "utf-8", "replace")
    mark = ELLIPSIS.encode()
    first = (size - len(mark)) // 2
    last = size - len(mark) - first
    return (
        data[:first].decode("utf-8", "ignore").encode()
        + mark
        + end[-last:].decode("utf-8", "ignore").encode()
    )


def _class(error: BaseException) -> str:
    return str(_name_of(type(error)))


def _text(error: BaseException) -> str:
    """Return the error's own text, with its notes."""
    try:
        text = str(error)
    except BaseException as refusal:  # noqa: BLE001 - the application's code, which must not end ours
        text = f"its text could not be made: {_class(refusal)}"
    notes = _notes(error)
    return cut_middle(text, limits.MAX_ERROR_TEXT_BYTES).decode() + notes


def _notes(error: BaseException) -> str:
    try:
        notes: Any = getattr(error, "__notes__", ())
        some = [note for note in notes[:MAX_NOTES] if isinstance(note, str)]
    except BaseException:  # noqa: BLE001 - as above; without its notes the error is still told
        return ""
    return "".join(f" [{cut_middle(note, 200).decode()}]" for note in some)


def _with_causes(error: BaseException) -> str:
    """Return the text of an error and, each behind an arrow, what it came from."""
    told, text = {id(error)}, _text(error)
    cause = _cause(error)
    while cause is not None and id(cause) not in told and len(told) <= MAX_CAUSES:
        told.add(id(cause))
        text += f" <- {_class(cause)}: {_text(cause)}"
        cause = _cause(cause)
    return text


def _cause(error: BaseException) -> BaseException | None:
    cause: BaseException | None = _cause_of(error)
    if cause is None and not _is_quiet(error):
        cause = _context_of(error)
    return cause


def _leaves(error: BaseException) -> tuple[list[BaseException], int]:
    """Return the first leaves of a group, itself if it is none, and how many there are beside them."""
    leaves, count = [], 0
    for leaf in leaves_of(error):
        count += 1
        if count <= MAX_LEAVES:
            leaves.append(leaf)
        if count >= MAX_LOOKS:
            break
    return leaves, max(count - MAX_LEAVES, 0)


def _place(traceback: TracebackType | None) -> str:
    """Return ` (file:line in function)` of the innermost frame in the application's code, or nothing."""
    frames: list[tuple[CodeType, int]] = []
    while traceback is not None:
        frames.append((traceback.tb_frame.f_code, traceback.tb_lineno))
        traceback = traceback.tb_next
        if len(frames) > MAX_LOOKS:
            del frames[1 : MAX_LOOKS // 2]  # a recursion: its ends say enough
    outside = [each for each in frames if not each[0].co_filename.startswith((_OURS, *_LIBRARY))]
    own = [each for each in outside if not any(part in each[0].co_filename for part in _INSTALLED)]
    if not own and outside:
        # The application is installed itself: its code is what stands beside the handler.
        home = outside[0][0].co_filename.rpartition("/")[0]
        own = [each for each in outside if each[0].co_filename.startswith(home)]
    if not own:
        return ""
    code, line = own[-1]
    file = "/".join(code.co_filename.replace("\\", "/").split("/")[-2:])
    place = cut_middle(f"{file}:{line} in {code.co_name}", 200).decode()
    return f" ({place})"
