"""What the commands that read a data directory without a server share: opening it, and the errors of that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from minibrokerd.cli.printing import fail, leave_closed_pipe
from minibrokerd.core.model.records import UnknownRecord
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.failures import LogError
from minibrokerd.log.fileops import FileOps
from minibrokerd.process import exits
from minibrokerd.rescue.keeping import SHOWN, Ids

_NO_LOG: Final = "name another directory with --data-dir"


def require_log(data_dir: Path) -> DataDirectory:
    """Return the data directory, neither opened nor locked; end the command if it is none."""
    if not data_dir.is_dir():
        fail(f"there is no data directory {data_dir}; name it with --data-dir", exits.NOT_WRITABLE)
    with speaking(data_dir):
        names = [path.name for path in data_dir.iterdir()]
    if not any(name.startswith("segment-") for name in names) and "state" not in names:
        fail(f"{data_dir} holds no log; {_NO_LOG}", exits.NOT_WRITABLE)
    return DataDirectory(data_dir, FileOps())


@contextmanager
def speaking(data_dir: Path) -> Iterator[None]:
    """End the command with the message and the exit code of what keeps the block from reading a log."""
    try:
        yield
    except LogError as error:
        fail(str(error), error.exit_code)
    except UnknownRecord as error:
        fail(f"{data_dir}: {error}; use that version", exits.NEWER)
    except BrokenPipeError:
        leave_closed_pipe()
    except OSError as error:
        fail(f"cannot read {data_dir}: {error}; check its owner and its rights", exits.NOT_WRITABLE)


def ids_text(runs: Sequence[Ids]) -> str:
    """Return runs of ids for a cell: the first ones, and how many there are."""
    shown = [
        f"{origin}-{first}" if count == 1 else f"{origin}-{first}..{first + count - 1}"
        for origin, first, count in runs[:SHOWN]
    ]
    return ", ".join(shown) + (", ..." if len(runs) > SHOWN else "")
