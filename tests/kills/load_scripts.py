"""The processes that load a server while something is killed, each with a ledger of its own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from support.scripts import Script

HERE = Path(__file__).resolve().parent


def load_scripts(
    stack: ExitStack, directory: Path, name: str, url: str, queue: str, *loops: str
) -> dict[Path, Script]:
    """Start `name` once for each event loop; return the processes by their ledgers. They end with the stack."""
    scripts = {}
    for number, loop in enumerate(loops):
        ledger = directory / f"{name}-{number}.ledger"
        script = Script(HERE / name, url, queue, ledger, loop, log=ledger.with_suffix(".log"))
        stack.callback(script.close)
        scripts[ledger] = script
    return scripts
