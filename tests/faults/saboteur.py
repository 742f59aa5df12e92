"""strace as a saboteur: the n-th call of one kind, on the files of one data directory, fails or kills the broker.

Only calls that touch the data directory count (`-P` for each name that may stand in it), so the numbers are those
of a run without a fault, whatever Python itself opens. strace counts for each thread apart: a fault hits each
thread that comes to its n-th call.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from support.broker import COMMAND as PROGRAM

HOW_TO_INSTALL: Final = "strace is missing: `apt-get install strace` (Debian, Ubuntu) has it"

# What the log asks of the system; `read` calls are for the recovery.
WRITES: Final = ("pwrite64", "pwritev2")
SYNCS: Final = ("fdatasync", "fsync")
NAMES: Final = ("openat", "rename", "unlink", "mkdir")
SPACE: Final = ("fallocate", "ftruncate")
READS: Final = ("pread64", "lseek", "getdents64", "newfstatat", "flock", "close")
CALLS: Final = (*WRITES, *SYNCS, *NAMES, *SPACE, *READS)

EIO, NO_SPACE, QUOTA, NO_FILES = "error=EIO", "error=ENOSPC", "error=EDQUOT", "error=EMFILE"
TAKES_NOTHING: Final = "retval=0"
KILL: Final = "signal=KILL"
ACTIONS: Final = (
    *product(CALLS, (EIO,)),
    *product((*WRITES, *SYNCS, *NAMES, *SPACE), (NO_SPACE, KILL)),
    *product(("fallocate", *SYNCS), (QUOTA,)),
    *product(WRITES, (TAKES_NOTHING,)),
    ("openat", NO_FILES),
    ("close", KILL),
)

_CALL = re.compile(
    r"^(?P<thread>\d+) +(?P<unix_s>\d+\.\d+) (?P<call>\w+)\((?P<rest>.*)", re.MULTILINE
)
_PATH = re.compile(r'(?<!AT_FDCWD)<(?P<descriptor>/[^>]*)>|"(?P<name>/[^"]*)"')


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """The `when`-th `call` of a thread ends in `action`, an injection of strace."""

    call: str
    action: str
    when: int

    def __str__(self) -> str:
        return f"{self.call}:{self.action}:when={self.when}"


@dataclass(frozen=True, slots=True)
class Hit:
    """Where and when a fault happened."""

    path: Path
    unix_s: float


class Saboteur:
    """The command that runs a broker on `data_dir` under strace, and what strace saw."""

    def __init__(
        self,
        data_dir: Path,
        trace: Path,
        fault: Fault | None,
        *,
        program: Sequence[str] = PROGRAM,
        always: Sequence[str] = (),
    ) -> None:
        """`always` are injections for the whole run, such as a flag that the file system does not know."""
        self._trace = trace
        self._fault = fault
        paths = [part for name in _names(data_dir) for part in ("-P", str(name))]
        injections = [*always, str(fault)] if fault else [*always]
        self.command = (
            # Not --seccomp-bpf, which would be faster: with it strace 6.1 delivers no injected signal.
            *(find_strace(), "-D", "-f", "-y", "-ttt", "-o", str(trace), *paths),
            *("-e", f"trace={','.join(CALLS)}", "-e", "signal=none"),
            *(part for injection in injections for part in ("-e", f"inject={injection}")),
            *program,
        )

    def counts(self) -> Counter[str]:
        """Return how often each call was made, by the thread that made most of it."""
        seen = Counter((found["thread"], found["call"]) for found in self._calls())
        most: Counter[str] = Counter()
        for (_, call), count in seen.items():
            most[call] = max(most[call], count)
        return most

    def hits(self) -> list[Hit]:
        """Return where the fault happened, in order; once for each thread that made the n-th call."""
        fault = self._fault
        assert fault is not None
        seen: Counter[str] = Counter()
        hits = []
        for found in self._calls():
            if found["call"] == fault.call:
                seen[found["thread"]] += 1
                if seen[found["thread"]] == fault.when:
                    path = _PATH.search(found["rest"])
                    text = (path["descriptor"] or path["name"]) if path else ""
                    hits.append(Hit(Path(text), float(found["unix_s"])))
        return hits

    def _calls(self) -> Iterable[re.Match[str]]:
        return _CALL.finditer(self._trace.read_text("utf-8", "replace"))


def find_strace() -> str:
    """Return the path of strace.

    Raises:
        FileNotFoundError: it is not installed; the text says how to install it.
    """
    path = shutil.which("strace")
    if path is None:
        raise FileNotFoundError(HOW_TO_INSTALL)
    return path


def _names(data_dir: Path) -> Iterable[Path]:
    """Yield the directory and every name that a short run can make in it."""
    yield data_dir
    for name in ("lock", "state", "key", "key.tmp", "failed", "next.tmp", "reserve.tmp"):
        yield data_dir / name
    for number in range(1, 9):
        yield data_dir / f"reserve-{number}.log"
        for generation in range(1, 4):
            for suffix in ("log", "index"):
                yield data_dir / f"segment-{number:010d}-{generation:05d}.{suffix}"
    yield from data_dir.glob("torn-*")
