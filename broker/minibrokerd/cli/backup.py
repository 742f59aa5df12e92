"""`minibroker backup` and `minibroker restore`: copies of a data directory while a server runs on it, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from minibrokerd.backups.backing import BackedUp, back_up
from minibrokerd.backups.bringing import Brought, as_map, bring_back
from minibrokerd.backups.manifest import Manifest
from minibrokerd.backups.pace import Pace
from minibrokerd.backups.shelf import Shelf
from minibrokerd.backups.verifying import Verified, verify
from minibrokerd.cli.offline import require_log, speaking
from minibrokerd.cli.options import data_dir_option, json_option, option
from minibrokerd.cli.peeking import age_of
from minibrokerd.cli.printing import fail, note, print_json, print_table, progress
from minibrokerd.cli.ranges import Size
from minibrokerd.log.fileops import FileOps
from minibrokerd.process import exits
from minibrokerd.text.counts import count_text

HEADS = ("number", "began", "batch", "segments", "bytes", "as it was written")


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@data_dir_option
@option(
    "--keep", type=click.IntRange(min=1), default=7, help="Back-ups that stay, this one included."
)
@option(
    "--rate",
    type=Size(),
    default="64MiB",
    help="Most bytes read and written in a second, so that a server beside it has the disk, too; 0: no limit.",
)
@option(
    "--list",
    "lists",
    is_flag=True,
    help="Only list the back-ups that DIR has.",
)
@option(
    "--verify",
    "verifies",
    is_flag=True,
    help="Only read the back-ups that DIR has, and judge them.",
)
@json_option
def backup(
    directory: Path,
    data_dir: Path,
    keep: int,
    rate: int,
    lists: bool,
    verifies: bool,
    as_json: bool,
) -> None:
    """Add a back-up of the data directory to DIR, while a server runs on it or not.

    It has all that was confirmed before it began. Segments that DIR has from earlier back-ups are not copied
    again. What is cut short is no back-up, harms none, and is gone on with by the next one.
    """
    if lists or verifies:
        with speaking(directory):
            _show(directory, as_json, reads=verifies)
        return
    require_log(data_dir)
    if data_dir.resolve() in (directory.resolve(), *directory.resolve().parents):
        raise click.UsageError(f"{directory} is in the data directory; name another place")
    shelf = Shelf(directory, FileOps())
    with speaking(data_dir):
        shelf.open()
        try:
            with progress("copying", None, prints=False, unit="bytes") as advance:
                pace = Pace(rate, spent=advance)
                done = back_up(data_dir, shelf, FileOps(), keep=keep, pace=pace)
        finally:
            shelf.close()
    for name in shelf.unreadable:
        note(f"minibroker: {shelf.at(name)} cannot be read, so no file is removed from {directory}")
    if as_json:
        print_json(
            _as_map(done.manifest) | {"copied_bytes": done.copied_bytes, "removed": done.removed}
        )
    else:
        _tell(done, directory)


@click.command()
@click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@data_dir_option
@option(
    "--number",
    type=click.IntRange(min=1),
    help="The back-up of this number; the newest without it.",
)
@option(
    "--new-sessions",
    is_flag=True,
    help="The original goes on elsewhere: its clients start anew here instead of going on with their sessions.",
)
@json_option
def restore(
    directory: Path, data_dir: Path, number: int | None, new_sessions: bool, as_json: bool
) -> None:
    """Make a data directory out of a back-up in DIR: a new one, or an empty one.

    Every byte is compared first. Message ids, tokens and queue numbers go on above all that can have been used
    since the back-up. What is cut short is no data directory: run it again.
    """
    with speaking(directory), progress("restoring", None, prints=False):
        brought = bring_back(
            Shelf(directory, FileOps()), number, data_dir, FileOps(), new_sessions=new_sessions
        )
    if as_json:
        print_json(as_map(brought))
        return
    _tell_restored(brought, data_dir)


def _tell(done: BackedUp, directory: Path) -> None:
    manifest = done.manifest
    rows = [
        ("up to", f"batch {manifest.batch:,}"),
        (
            "holds",
            f"{count_text(manifest.bytes, 'byte')} in {count_text(len(manifest.segments), 'segment')}",
        ),
        ("copied", f"{count_text(done.copied_bytes, 'byte')}, the rest was there"),
    ]
    if done.removed:
        rows.append(("removed", ", ".join(f"back-up {number}" for number in done.removed)))
    print_table((f"back-up {manifest.number}", str(directory)), rows, "", prose=True)


def _tell_restored(brought: Brought, data_dir: Path) -> None:
    restored = brought.restored
    rows = [
        ("from", f"back-up {brought.number}, {age_of(brought.began_unix_ms)} old, up to batch {brought.batch:,}"),
        ("epoch", f"{restored.epoch}, it was {restored.epoch_before}"),
        ("queues", f"{restored.queues}, each goes on at ids of its own"),
        ("sessions", "go on" if restored.sessions else "start anew"),
    ]  # fmt: skip
    if brought.finished:
        rows.append(
            ("note", "an earlier restore was cut short when it was whole; it is finished now")
        )
    print_table(("what", str(data_dir)), rows, "", prose=True)
    note(f"next: minibroker serve --data-dir {data_dir}")


def _show(directory: Path, as_json: bool, *, reads: bool) -> None:
    shelf = Shelf(directory, FileOps())
    manifests = shelf.manifests()
    verdicts: Sequence[Verified | None] = [None] * len(manifests)
    if reads:
        with progress("verifying", len(manifests), prints=False, unit="back-ups") as advance:
            verdicts = []
            for manifest in manifests:
                verdicts.append(verify(shelf, manifest))
                advance(1)
    _print(manifests, verdicts, directory, as_json)
    for name in shelf.unreadable:
        note(f"minibroker: {shelf.at(name)} cannot be read: damaged, or of a newer release")
    wrong = [verdict.manifest.number for verdict in verdicts if verdict and verdict.wrong]
    if reads and (wrong or shelf.unreadable or not manifests):
        what = (
            f"damaged: {', '.join(map(str, wrong))}" if wrong else "not every manifest can be read"
        )
        fail(what if manifests else f"{directory} has no back-up", exits.DAMAGED)


def _print(
    manifests: Sequence[Manifest],
    verdicts: Sequence[Verified | None],
    directory: Path,
    as_json: bool,
) -> None:
    if as_json:
        for manifest, verdict in zip(manifests, verdicts, strict=True):
            more = {"whole": not verdict.wrong, "wrong": verdict.wrong} if verdict else {}
            print_json(_as_map(manifest) | more)
        return
    rows = [
        (
            manifest.number, f"{age_of(manifest.began_unix_ms)} ago", manifest.batch, len(manifest.segments),
            manifest.bytes, _word(verdict),
        )
        for manifest, verdict in zip(manifests, verdicts, strict=True)
    ]  # fmt: skip
    print_table(HEADS, rows, f"{directory} has no back-up", prose=True)


def _word(verdict: Verified | None) -> str:
    if verdict is None:
        return "not asked (--verify)"
    return (
        "; ".join(verdict.wrong)
        or f"yes: {count_text(verdict.batches, 'batch')}, {count_text(verdict.records, 'record')}"
    )


def _as_map(manifest: Manifest) -> dict[str, Any]:
    return {
        "number": manifest.number,
        "batch": manifest.batch,
        "epoch": manifest.epoch,
        "began_unix_ms": manifest.began_unix_ms,
        "ended_unix_ms": manifest.ended_unix_ms,
        "segments": len(manifest.segments),
        "bytes": manifest.bytes,
        "store": manifest.store,
        "version": manifest.version,
    }
