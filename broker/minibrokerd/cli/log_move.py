"""`minibroker log move`: a log goes from files into a stream, or from a stream into files."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from minibrokerd.cli.offline import require_log, speaking
from minibrokerd.cli.options import json_option, option
from minibrokerd.cli.printing import note, print_json, print_table, progress
from minibrokerd.cli.ranges import Size
from minibrokerd.cli.serve import DEFAULT_SEGMENT_BYTES, PAGE_BYTES
from minibrokerd.text.counts import count_text
from minibrokerd.text.units import size_text

DONE: Final = {
    "LOOK": "would be moved",
    "COPY": "was copied, and read back",
    "MOVE": "was moved, and read back",
}


@click.command("move")
@click.argument("source")
@click.argument("dest")
@option("--dry-run", is_flag=True, help="Look at both ends and say what would be moved.")
@option(
    "--copy",
    "copies",
    is_flag=True,
    help="A back-up: SOURCE goes on, also while a broker leads it if it is a stream. DEST must be a directory.",
)
@option(
    "--segment-bytes",
    type=Size(64 * 1024, 2**30, PAGE_BYTES),
    default=size_text(DEFAULT_SEGMENT_BYTES),
    help="Size of the files of the log, where they are made.",
)
@json_option
def move_command(
    source: str, dest: str, dry_run: bool, copies: bool, segment_bytes: int, as_json: bool
) -> None:
    """Move a log: SOURCE and DEST are a data directory, or a stream as `serve --log` names it.

    No server may run on SOURCE, and DEST must be empty, or what an earlier move left there that was ended: begin
    again, and it goes on. Message ids, tokens, sessions and outcomes go on. Afterwards no server starts on SOURCE
    any more.
    """
    if copies and (dry_run or "://" in dest):
        raise click.UsageError("--copy makes a directory, and does not look only")
    how = "LOOK" if dry_run else "COPY" if copies else "MOVE"
    with speaking(shown(source)), progress("moving", None, prints=False, unit="batches") as advance:
        moved = _moved(source, dest, segment_bytes, how, advance)
    if as_json:
        print_json(asdict(moved) | {"dry_run": dry_run, "copy": copies})
        return
    rows = [
        (
            "batches",
            f"{moved.batches:,}, of {count_text(moved.records, 'record')}, {count_text(moved.size_bytes, 'byte')}",
        ),
        ("there before", f"{moved.resumed:,} of these"),
        ("messages", f"{moved.messages:,} in {count_text(moved.queues, 'queue')}"),
        ("sessions", f"{moved.sessions:,}"),
        ("epoch", f"goes on above {moved.epoch}"),
        ("SHA-256", moved.digest),
    ]
    print_table(("what", DONE[how]), rows, "", prose=True)
    if copies:
        note(f"before a server starts on the copy: minibroker log restore --data-dir {dest}")
    elif not dry_run:
        note(f"next: minibroker serve {_flags(source, dest)}")


def shown(text: str) -> Path:
    """Return an end as errors name it: without who asks."""
    return Path(str(_address(text)) if "://" in text else text)


def _moved(source: str, dest: str, segment_bytes: int, how: str, advance: Any) -> Any:
    from minibrokerd.moving.both_ends import How
    from minibrokerd.moving.move import move

    return asyncio.run(move(_origin(source), _target(dest, segment_bytes), How[how], advance))


def _origin(text: str) -> Any:
    if "://" in text:
        from minibrokerd.moving.streams import StreamOrigin

        return StreamOrigin(_address(text))
    from minibrokerd.moving.directories import DirectoryOrigin

    require_log(Path(text))
    return DirectoryOrigin(Path(text))


def _target(text: str, segment_bytes: int) -> Any:
    if "://" in text:
        from minibrokerd.moving.streams import StreamTarget

        return StreamTarget(_address(text))
    from minibrokerd.moving.directories import DirectoryTarget

    return DirectoryTarget(Path(text), segment_bytes)


def _address(text: str) -> Any:
    from minibrokerd.replicated.stream_address import parse

    try:
        return parse(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _flags(source: str, dest: str) -> str:
    if "://" not in dest:
        return f"--data-dir {dest} (tokens are not moved: copy the file `tokens` there)"
    log = f"--log {_address(dest)} --standby"
    # Its tokens stay in the directory that the log has left.
    return log if "://" in source else f"{log} --data-dir {source}"
