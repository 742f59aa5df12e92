"""`minibroker log check`: is the log whole, and if not, what is damaged and which messages are at risk."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from minibrokerd.cli.offline import ids_text, require_log, speaking
from minibrokerd.cli.options import data_dir_option, json_option
from minibrokerd.cli.printing import note, print_json, print_table, progress, say
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.failures import LogError
from minibrokerd.log.fileops import FileOps
from minibrokerd.process import exits
from minibrokerd.rescue.checking import Checked, Damage, check
from minibrokerd.rescue.keeping import Keeper, QueueRisk
from minibrokerd.rescue.pieces import Piece
from minibrokerd.retained.checking import LogLooked, asides, check_logs
from minibrokerd.text.counts import count_text

LOOKS: Final = 3  # at a directory that a server writes to meanwhile
RISK_HEADS: Final = ("queue", "live", "lost", "lost or in memory", "may come again", "of these")


@click.command("check")
@data_dir_option
@json_option
def check_command(data_dir: Path, as_json: bool) -> None:
    """Verify every byte of the log and of retained logs, and say what is damaged.

    Nothing is locked and nothing is changed: it works on a copy, too, and beside a running server, whose last
    segment moves meanwhile. It goes on behind damage, to the end of the last segment.
    """
    directory = require_log(data_dir)
    with speaking(data_dir):
        checked, risks = _look(directory)
        retained = str(data_dir / "retained")
        logs = list(check_logs(FileOps(), retained))
        aside = [f"retained/{name}" for name in asides(FileOps(), retained)]
        if as_json:
            more = {"retained": [asdict(each) for each in logs], "retained_aside": aside}
            print_json(as_map(checked, risks) | more)
        else:
            tell(checked, risks)
            tell_retained(logs, aside)
    whole = checked.whole and not any(each.damages for each in logs)
    sys.exit(exits.DONE if whole else exits.DAMAGED)


def _look(directory: DataDirectory) -> tuple[Checked, list[QueueRisk]]:
    """Check; what a running server changes meanwhile looks like damage, and is another one at each look."""
    for look in range(1, LOOKS + 1):
        keeper = Keeper()
        try:
            with progress("checking", None, prints=False, unit="batches") as advance:

                def each(piece: Piece, keeper: Keeper = keeper) -> None:
                    keeper.keep(piece)
                    advance(1)

                checked = check(directory, FileOps(), each)
        except LogError:
            if look == LOOKS:
                raise
            continue
        if checked.whole or not checked.holder or look == LOOKS:
            break
    keeper.added(checked.survey.lost_bytes, end_lost=checked.survey.end_lost)
    return checked, [] if checked.whole else keeper.risks()


def tell(checked: Checked, risks: list[QueueRisk]) -> None:
    """Print a check for people: the verdict, the places, the messages."""
    survey = checked.survey
    say(_verdict(checked))
    closed = "closed" if checked.clean else "not closed, as after a crash"
    if checked.holder:
        closed = f"open: process {checked.holder} writes to it, and its last segment moves"
    read = (len(survey.order), "segment"), (survey.batches, "batch"), (survey.records, "record")
    rows: list[tuple[str, object]] = [
        ("read", ", ".join(count_text(*each) for each in read)),
        ("log", closed),
    ]  # fmt: skip
    rows += [("torn append", f"{_place(torn)}: never confirmed") for torn in checked.torn]
    rows += [(what, ", ".join(names)) for what, names in _files(checked).items() if names]
    print_table(("what", "found"), rows, "", prose=True)
    if checked.whole:
        return
    say()
    heads = ("damaged", "bytes", "batches", "records kept", "broken")
    print_table(
        heads, map(_damage_row, checked.damages), "no damaged bytes: the files do not fit together"
    )
    print_risks(risks)
    note(f"serve says: {checked.refusal}")


def tell_retained(logs: list[LogLooked], aside: list[str]) -> None:
    """Print what was found of retained logs, if there are any, and of those that a start did not know."""
    for name in aside:
        note(
            f"{name} is of a retained log that a start did not know; no server reads or deletes it"
        )
    if not logs:
        return
    heads = ("retained log", "segments", "messages", "damaged places")
    rows = [(each.number, each.segments, each.messages, len(each.damages)) for each in logs]
    say()
    print_table(heads, rows, "")
    for each in logs:
        for file, start, end in each.damages:
            note(f"retained/{each.number}/{file}: bytes {start} to {end} are skipped by who reads")


def print_risks(risks: list[QueueRisk]) -> None:
    """Print what the damage means for the messages of each queue."""
    rows = [
        (
            risk.name, risk.live, ids_text(risk.lost) or "-", ids_text(risk.unknown) or "-", risk.again,
            ids_text([(origin, sequence, 1) for origin, sequence in risk.again_ids]) or "-",
        )
        for risk in risks
    ]  # fmt: skip
    say()
    print_table(RISK_HEADS, rows, "no queue is left")


def as_map(checked: Checked, risks: list[QueueRisk]) -> dict[str, Any]:
    """Return a check as one JSON object."""
    survey = checked.survey
    return {
        "whole": checked.whole,
        "closed": checked.clean,
        "server_pid": checked.holder or None,
        "segments": len(survey.order),
        "batches": survey.batches,
        "records": survey.records,
        "damages": [asdict(each) for each in checked.damages],
        "torn": [asdict(each) for each in checked.torn],
        "missing_segments": survey.missing,
        **{name.replace(" ", "_"): names for name, names in _files(checked).items()},
        "refusal": str(checked.refusal) if checked.refusal else None,
        "queues": [asdict(risk) for risk in risks],
    }


def _verdict(checked: Checked) -> str:
    if checked.whole:
        return "the log is whole" + (", up to a torn last append" if checked.torn else "")
    places = len(checked.damages)
    return (
        f"the log is damaged in {places} place{'s' * (places != 1)}"
        if places
        else "the log is damaged"
    )


def _files(checked: Checked) -> dict[str, list[str]]:
    survey = checked.survey
    return {
        "missing": [f"segment {number}" for number in survey.missing],
        "misnamed": [
            f"{file.name} holds segment {file.origin.segment}, generation {file.origin.generation}"
            for file in survey.order
            if file.misnamed and file.origin is not None
        ],
        "of another log": survey.strangers,
        "side files": checked.side_files,
        "damaged indexes": checked.bad_indexes,
        "leftovers": survey.leftovers,
        "foreign": checked.foreign,
    }


def _place(damage: Damage) -> str:
    return f"{damage.file}, bytes {damage.start} to {damage.end}"


def _damage_row(damage: Damage) -> tuple[object, ...]:
    last = damage.last_batch or damage.first_batch
    batches = str(last) if last == damage.first_batch else f"{damage.first_batch} to {last}"
    where = f"{damage.start} to {damage.end}"
    return damage.file, where, batches, damage.kept, damage.broken or "not known"
