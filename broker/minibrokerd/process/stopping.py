"""The signals of the process, caught from the first moment on, whatever the process is doing.

One table says what becomes of each. A stop in good order is asked for once; who asks twice wants the process to
end there and then. `timeout` of the coreutils signals its child and then the child's group, a terminal a whole
group whose supervisor hands the signal on: so one asking may arrive as two signals, in a moment. These are
handlers of the interpreter and not of the event loop: they also run while the loop recovers a log or waits for a
disk.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NoReturn

from minibrokerd.process import exits
from minibrokerd.process.outlet import STDERR, write_once

LAST_WORDS_S: Final = 0.25
TWICE_S: Final = 0.25  # what comes within so much of the first asking is the same one (decision 25)
RACE: Final = "ignored due to race condition"
LEFT: Final = b"minibroker: asked to stop twice: leaving at once, as after a crash\n"


class Becomes(Enum):
    """What a signal brings about."""

    STOP = "a stop in good order; the second one leaves at once, with 71"
    HANGUP = (
        "from the terminal that the server was started on: a stop in good order, also if it comes again. "
        "Without a terminal: certificates, tokens and the file of `--config` are read again; "
        "there is no log file to open"
    )
    IGNORED = "nothing but an event"
    SILENCE = "nothing: a background process may write to its terminal"
    CONTINUED = "an event: leases ran on while the process was stopped (SIGSTOP, SIGTSTP, Ctrl-Z)"


@dataclass(frozen=True, slots=True)
class Row:
    """What becomes of some signals. `always`: also when the process was started with them ignored."""

    names: tuple[str, ...]
    becomes: Becomes
    always: bool = False


# What is not in the table keeps its default: SIGKILL, SIGSTOP and SIGTSTP, SIGABRT (the watchdog of systemd) and
# the faults of a program. SIGPIPE and SIGXFSZ are ignored by Python: the write fails instead.
SIGNALS: Final = (
    Row(("SIGTERM", "SIGINT"), Becomes.STOP, always=True),
    Row(("SIGQUIT", "SIGPWR", "SIGXCPU"), Becomes.STOP),
    Row(("SIGHUP",), Becomes.HANGUP),
    Row(
        ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGSTKFLT", "SIGRTMIN"),
        Becomes.IGNORED,  # of the last one: all up to SIGRTMAX
    ),
    Row(("SIGTTOU",), Becomes.SILENCE),
    Row(("SIGCONT",), Becomes.CONTINUED),
)


def leave_at_once() -> NoReturn:
    """End the process as a crash would."""
    write_once(STDERR, LEFT).join(LAST_WORDS_S)
    os._exit(exits.DRAIN)


def ignore(numbers: Iterable[int]) -> None:
    """Have signals ignored until the process ends, also those that arrive in this very moment.

    One that was caught before, and whose handler has not run yet, is an OSError that the interpreter gives to the
    hook for what nobody can catch: "ignored due to race condition" (CPython, signalmodule.c).
    """
    hook = sys.unraisablehook

    def pass_over(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, OSError) and RACE in str(unraisable.exc_value)):
            hook(unraisable)

    sys.unraisablehook = pass_over
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


class Asking:
    """Tells a second asking for a stop from a first one that arrives twice, by the time between the two."""

    def __init__(self) -> None:
        self._first_s = 0.0

    def first(self) -> None:
        """Note that a stop is asked for."""
        self._first_s = time.monotonic()

    def is_second(self) -> bool:
        """Return whether what asks now is another asking, behind the first."""
        return time.monotonic() - self._first_s >= TWICE_S


class StopSignals:
    """Catches the signals. `asked` names the first one that asked for a stop (empty: none came).

    `on_second` is called when a stop is asked for again (`is_second` says whether a signal does, by default by the
    clock), `on_hangup` at a SIGHUP that does not ask for one, `on_other` with the name of a signal that is ignored
    (and with that one), `on_continued` when the process goes on after it had been stopped.
    """

    def __init__(self) -> None:
        self.asked = ""
        self._asking = Asking()
        self.is_second: Callable[[], bool] = self._asking.is_second
        self.on_second: Callable[[], object] = leave_at_once
        self.on_other: Callable[[str], object] = lambda name: None
        self.on_hangup: Callable[[], object] = lambda: None
        self.on_continued: Callable[[], object] = lambda: None
        self._on_first: Callable[[], object] | None = None
        self._has_terminal = False

    def catch(self) -> None:
        """Take the signals over from the interpreter, but for those that were ignored from the start (nohup)."""
        self._has_terminal = _has_terminal()
        for row in SIGNALS:
            for number in _numbers(row.names):
                if row.always or signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, self._handler(row.becomes))

    def call(self, on_first: Callable[[], object]) -> None:
        """Call `on_first`, in the signal's handler, when a stop is asked for: now, if it was before."""
        self._on_first = on_first
        if self.asked:
            on_first()

    def end(self) -> None:
        """Let no signal change anything any more: the process has an exit code.

        The interpreter gives signals that have a handler their defaults back while it ends, and one more SIGTERM
        would be how the process ended; an ignored one stays ignored. A handler would speak to a loop that is gone.
        """
        rows = [row for row in SIGNALS if row.becomes is not Becomes.CONTINUED]
        ignore(number for row in rows for number in _numbers(row.names))

    def _handler(self, becomes: Becomes) -> Callable[[int, object], object] | signal.Handlers:
        if becomes is Becomes.STOP:
            return self._stop
        if becomes is Becomes.HANGUP:
            # Never a second asking: managers send it behind SIGTERM, and a terminal that closes sends it twice.
            return self._stop_once if self._has_terminal else self._hang_up
        if becomes is Becomes.CONTINUED:
            return lambda number, frame: self.on_continued()
        return signal.SIG_IGN if becomes is Becomes.SILENCE else self._other

    def _stop(self, number: int, frame: object) -> None:
        if not self.asked:
            self._stop_once(number, frame)
        elif self.is_second():
            self.on_second()

    def _stop_once(self, number: int, frame: object) -> None:
        if self.asked:
            self._other(number, frame)
            return
        self.asked = signal.Signals(number).name
        self._asking.first()
        if self._on_first is not None:
            self._on_first()

    def _hang_up(self, number: int, frame: object) -> None:
        self._other(number, frame)
        self.on_hangup()

    def _other(self, number: int, _: object) -> None:
        try:
            self.on_other(signal.Signals(number).name)
        except ValueError:  # most of the real-time signals have no name
            self.on_other(str(number))


def _numbers(names: tuple[str, ...]) -> list[int]:
    found = [int(getattr(signal, name)) for name in names if hasattr(signal, name)]
    if "SIGRTMIN" in names and hasattr(signal, "SIGRTMIN"):
        found += range(signal.SIGRTMIN + 1, signal.SIGRTMAX + 1)
    return found


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
