"""A terminal for commands under test: of a size that the test says, and what was written to it as lines."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from rich.cells import cell_len
from typing_commands import CLEAN

from support import warm

STYLE = re.compile(r"\x1b\[[0-9;]*m")
DEADLINE_S = 30.0
BARE = {
    name: value
    for name, value in CLEAN.items()
    if name not in {"COLUMNS", "LINES", "NO_COLOR", "PYTHONIOENCODING"}
}


class Terminal:
    """The other end of a terminal, on which one command runs."""

    def __init__(self, columns: int, lines: int, *words: str, env: Mapping[str, str]) -> None:
        self._end, theirs = pty.openpty()
        self.resize(columns, lines)
        self.before = self.settings  # of the terminal, before the command could change them
        variables = {**BARE, "TERM": "xterm-256color", **env}
        self.process = warm.in_session(words, variables, theirs)
        os.close(theirs)
        self.written = b""

    def resize(self, columns: int, lines: int) -> None:
        """Give the window another size."""
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        """Type on the keyboard; a newline is Enter."""
        os.write(self._end, text.encode())

    def read_until(self, text: bytes, after: int = 0) -> int:
        """Return where `text` ends in what was written behind `after`; fail if the command ends before."""
        while text not in self.written[after:]:
            assert self.read(), f"{text!r} never came: {self.written!r}"
        return self.written.index(text, after) + len(text)

    def interrupt(self) -> None:
        """Press Ctrl-C, and again each second, until the command ends.

        One that comes after a question was written and before its answer is read is seen when that read ends:
        Python looks for signals before a read of the system, which is interrupted by those that come within it.
        """
        while self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0)

    def end(self) -> str:
        """Wait for the end of the command; return all that it wrote."""
        while self.read():
            pass
        self.process.wait(DEADLINE_S)
        return self.written.decode("utf-8", "backslashreplace").replace("\r\n", "\n")

    def close(self) -> None:
        """End the command, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._end)

    @property
    def settings(self) -> list[object]:
        """Return how it treats what is typed: echo, whole lines, signals."""
        return list(termios.tcgetattr(self._end))

    def read(self) -> bool:
        """Take what was written meanwhile; return False when nobody has the terminal open any more."""
        assert select.select([self._end], [], [], DEADLINE_S)[0], f"silent: {self.written!r}"
        try:
            chunk = os.read(self._end, 65_536)
        except OSError as error:
            if error.errno != errno.EIO:  # which says that nobody has the other end open any more
                raise
            return False
        self.written += chunk
        return bool(chunk)


@contextmanager
def terminal(
    columns: int, *words: str, lines: int = 24, env: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Run `minibroker WORDS` on a terminal of this size."""
    made = Terminal(columns, lines, *words, env=env or {})
    try:
        yield made
    finally:
        made.close()


def lines_at(
    columns: int, *words: str, code: int = 0, env: Mapping[str, str] | None = None
) -> list[str]:
    """Return the lines of a command that ends with `code`, none of them wider than the terminal."""
    # Without a bar that comes and goes: it is drawn in lines of its own.
    with terminal(columns, *words, env={"TERM": "dumb", **(env or {})}) as made:
        text = made.end()
        assert made.process.returncode == code, text
    lines = text.splitlines()
    assert not [line for line in lines if cell_len(line) > columns]
    assert "\x1b" not in text
    return lines
