"""A broker without a fault that is there in a moment: forked from a process that has imported everything already.

A run of the campaign starts two brokers, and importing is most of what a start takes. The one with the fault has
to be a fresh program, for strace; the one that looks at what is left has not.
"""

from __future__ import annotations

import ctypes
import os
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from support.broker import LISTENING

WARM = get_context("forkserver")
WARM.set_forkserver_preload(
    ["minibrokerd.serving.server", "minibrokerd.cli.serve", "forked_broker"]
)
STOP_S = 20.0
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
SIGKILL = 9


class ForkedBroker:
    """One life of a broker on a data directory; what it says goes to `log`.

    Raises:
        AssertionError: it ended before it listened; the text has what it said.
    """

    def __init__(self, data_dir: Path, log: Path, *flags: str) -> None:
        self._log = log
        reader, writer = WARM.Pipe(duplex=False)
        arguments = ["serve", "--data-dir", str(data_dir), *flags]
        self._process = WARM.Process(target=_serve, args=(arguments, writer, log))
        self._process.start()
        writer.close()
        self.port = self._listen(reader)

    def _listen(self, reader: Connection) -> int:
        with os.fdopen(os.dup(reader.fileno()), encoding="utf-8") as output:
            reader.close()
            for line in output:
                if found := LISTENING.search(line):
                    return int(found["port"])
        code = self.stop()
        raise AssertionError(f"it ended with {code}:\n{self._log.read_text('utf-8', 'replace')}")

    def stop(self) -> int | None:
        """Ask it to stop; return its exit code, None if it did not end."""
        self._process.terminate()
        self._process.join(STOP_S)
        code = self._process.exitcode
        self._process.kill()
        return code


def _serve(arguments: list[str], writer: Connection, log: Path) -> None:
    """Be the broker: standard output is the pipe, standard error the log."""
    from minibrokerd.cli.main import main

    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, SIGKILL)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    os.dup2(writer.fileno(), 1)
    writer.close()
    # Those that were there may remember that they were files, in which one can seek.
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.argv = ["minibroker", *arguments]
    main(arguments, prog_name="minibroker")
