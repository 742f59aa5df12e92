"""Run as a process: print what it finds itself in, so that two ways to start one can be compared."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path


def stream_of(name: str) -> list[object]:
    """Return all that tells one standard stream from another."""
    stream = getattr(sys, name)
    assert stream is getattr(sys, f"__{name}__")
    flags = stream.encoding, stream.errors, stream.line_buffering, stream.write_through
    return [stream.fileno(), *flags, stream.isatty(), type(stream.buffer).__name__]


def main() -> None:
    """Print it as JSON."""
    status = Path("/proc/self/status").read_text().splitlines()
    os.umask(umask := os.umask(0))
    found = {
        "arguments": sys.argv,
        "as it was called": sys.orig_argv,
        "name": __name__,
        "path": sys.path,
        "variables": dict(os.environ),
        "folder": os.getcwd(),
        "streams": [stream_of(name) for name in ("stdin", "stdout", "stderr")],
        "files": sorted(os.listdir("/proc/self/fd")),
        "signals": [line for line in status if line.startswith(("SigBlk", "SigIgn", "SigCgt"))],
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "leads a session": os.getsid(0) == os.getpid(),
        "umask": umask,
        "limits": [resource.getrlimit(number) for number in range(16)],
        "flags": list(sys.flags),
        "writes bytecode": sys.dont_write_bytecode,
        "threads": [line for line in status if line.startswith("Threads")],
        "input": sys.stdin.read(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
