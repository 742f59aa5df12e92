"""The terminal of `minibroker top`: keys come from it, the screen goes to it, and it is always put back.

It waits for three things at once: a key, a look that was taken, a signal. Signals are noted and not raised, so
they cut off nothing that is being drawn; one that ends the process does so when the terminal is as it was.
"""

from __future__ import annotations

import curses
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from minibrokerd.cli.printing import shown
from minibrokerd.cli.streams import can_show, terminal_size
from minibrokerd.cli.top_lines import Letters, Style
from minibrokerd.cli.top_looking import Failed, Found, Looker
from minibrokerd.cli.top_screen import Screen, Wish

ESCAPE_MS: Final = 25  # within which the rest of a key that begins with Escape must come
TICK_S: Final = 1.0  # ages on the screen grow
ENDS: Final = (signal.SIGTERM, signal.SIGHUP)
KEYS: Final[Mapping[int | str, str]] = {
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_LEFT: "left",
    curses.KEY_RIGHT: "right",
    curses.KEY_PPAGE: "page_up",
    curses.KEY_NPAGE: "page_down",
    curses.KEY_HOME: "home",
    curses.KEY_END: "end",
    curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "backspace",
    "\n": "enter",
    "\r": "enter",
    "\x1b": "escape",
    "\x7f": "backspace",
    "\b": "backspace",
}


def why_not() -> str:
    """Return why no screen can be shown here; empty: one can."""
    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if not stream.isatty():
            return f"standard {name} is no terminal"
    try:
        curses.setupterm()
        can = curses.tigetstr("cup") is not None
    except curses.error:
        can = False
    term = os.environ.get("TERM", "")
    return "" if can else f"a terminal of this kind (TERM={term}) cannot be drawn on"


def letters() -> Letters:
    """Return what the terminal can show."""
    if can_show("…▾▴", sys.stdout):
        return Letters("…", "▾", "▴", shown)
    return Letters(clean=shown)


class Terminal:
    """A screen on the terminal, until somebody ends it."""

    def __init__(self, window: curses.window, wakes: int, screen: Screen, looker: Looker) -> None:
        self._window = window
        self._wakes = wakes
        self._screen = screen
        self._looker = looker
        self._looks = _looks()
        self._waits = select.poll()
        self._waits.register(wakes, select.POLLIN)
        self._waits.register(sys.stdin, select.POLLIN)

    def run(self, ended: list[int]) -> None:
        """Show it until a key says that it is enough, a signal is in `ended`, or the terminal has gone."""
        while not ended:
            self._draw()
            ready = dict(self._waits.poll(TICK_S * 1_000))
            if self._wakes in ready:
                os.read(self._wakes, 4_096)
            for found in self._found():
                self._take(found)
            keys = self._keys()
            if ready.get(sys.stdin.fileno(), 0) & ~select.POLLIN or any(map(self._press, keys)):
                return

    def _found(self) -> Iterator[Found]:
        while self._looker.results:
            yield self._looker.results.popleft()

    def _take(self, found: Found) -> None:
        if isinstance(found, Exception):
            raise found
        if self._screen.paused:
            return
        if isinstance(found, Failed):
            word = "REFUSED" if found.refused else "AWAY"
            self._screen.fail(word, found.text, time.monotonic())
        else:
            self._screen.take(found)

    def _press(self, key: str) -> bool:
        """Press a key; return whether that was the end."""
        wish = self._screen.press(key)
        self._looker.wish(
            self._screen.filter,
            self._screen.queue,
            paused=self._screen.paused,
            at_once=wish is Wish.LOOK,
        )
        return wish is Wish.END

    def _keys(self) -> Iterator[str]:
        while True:
            try:
                key = self._window.get_wch()
            except curses.error:  # there are no more
                return
            if key == curses.KEY_RESIZE:
                continue
            name = KEYS.get(key, key if isinstance(key, str) else "")
            if name:
                yield name

    def _draw(self) -> None:
        size = terminal_size(sys.stdout)
        if size is not None and (size.lines, size.columns) != self._window.getmaxyx():
            curses.resizeterm(size.lines, size.columns)
        height, width = self._window.getmaxyx()
        self._window.erase()
        lines = self._screen.lines(width, height, time.monotonic(), self._looker.asked_s)
        for at, line in enumerate(lines):
            # Of the last cell of all, curses writes the letter and then says that it cannot go on.
            with _last_cell(at == height - 1):
                self._window.addstr(at, 0, line.text, self._looks[line.style])
        self._window.refresh()


@contextmanager
def _last_cell(is_last: bool) -> Iterator[None]:
    try:
        yield
    except curses.error:
        if not is_last:
            raise


def _looks() -> Mapping[Style, int]:
    alarm = curses.A_BOLD
    if not os.environ.get("NO_COLOR") and curses.has_colors():
        curses.start_color()
        curses.use_default_colors()
        curses.init_pair(1, curses.COLOR_RED, -1)
        alarm |= curses.color_pair(1)
    return {
        Style.PLAIN: curses.A_NORMAL,
        Style.HEAD: curses.A_BOLD,
        Style.CHOSEN: curses.A_REVERSE,
        Style.ALARM: alarm,
    }


def show(screen: Screen, looking: Callable[[Callable[[], object]], Looker]) -> None:
    """Show a screen until the user ends it; `looking` starts what looks, and is given what wakes the screen.

    A signal that ends the process does so here, after the terminal was put back.
    """
    ended: list[int] = []
    with _pipe() as (wakes, wake), _signals(wake, ended), _window() as window:

        def wake_up() -> None:
            with suppress(BlockingIOError):  # it is full: it wakes just as well
                os.write(wake, b".")

        looker = looking(wake_up)
        try:
            Terminal(window, wakes, screen, looker).run(ended)
        finally:
            looker.close()
    for number in ended:
        signal.raise_signal(number)


@contextmanager
def _window() -> Iterator[curses.window]:
    window = curses.initscr()
    try:
        curses.noecho()
        curses.cbreak()
        curses.set_escdelay(ESCAPE_MS)
        window.keypad(True)
        window.nodelay(True)
        with _without_cursor():
            yield window
    finally:
        curses.endwin()


@contextmanager
def _without_cursor() -> Iterator[None]:
    try:
        before = curses.curs_set(0)
    except curses.error:  # this terminal always shows it
        yield
        return
    try:
        yield
    finally:
        curses.curs_set(before)


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pipe that never blocks."""
    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


@contextmanager
def _signals(wake: int, ended: list[int]) -> Iterator[None]:
    """Let signals write to `wake`; those that end the process are put into `ended` while the block runs."""

    def end(number: int, _: Any) -> None:
        ended.append(number)

    def resize(number: int, _: Any) -> None:
        """The screen is drawn again at every wake, for the size that there is then."""

    handlers = {**dict.fromkeys(ENDS, end), signal.SIGWINCH: resize}
    # A signal that is ignored, as SIGHUP under nohup, stays so.
    mine = {each: handlers[each] for each in handlers if signal.getsignal(each) != signal.SIG_IGN}
    before = {each: signal.signal(each, handler) for each, handler in mine.items()}
    fd = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd)
        for each, handler in before.items():
            signal.signal(each, handler)
