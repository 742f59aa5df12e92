"""`minibroker log salvage`: a new data directory out of what still verifies of a damaged one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from minibrokerd.cli.log_check import print_risks
from minibrokerd.cli.offline import require_log, speaking
from minibrokerd.cli.options import data_dir_option, json_option, option
from minibrokerd.cli.printing import fail, note, print_json, print_table, progress
from minibrokerd.log.fileops import FileOps
from minibrokerd.process import exits
from minibrokerd.rescue.checking import lock_holder
from minibrokerd.rescue.salvage import Salvaged, refuse_target, salvage
from minibrokerd.text.counts import count_text


@click.command("salvage")
@data_dir_option
@option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The new data directory; it must not be there yet, or be empty.",
)
@json_option
def salvage_command(data_dir: Path, out: Path, as_json: bool) -> None:
    """Build a new data directory out of all that still verifies.

    The damaged one is only read. Ids and tokens go on above all that can have been in use. A message whose ack may
    have stood in the damaged bytes may be delivered again.
    """
    directory = require_log(data_dir)
    holder = lock_holder(directory.at("lock"))
    if holder:
        fail(f"process {holder} runs on {data_dir}; stop it first", exits.LOCKED)
    with speaking(data_dir):
        refuse_target(data_dir, out)
        with progress("salvaging", None, prints=False):
            salvaged = salvage(data_dir, out, FileOps())
        if as_json:
            print_json(_as_map(salvaged, out))
        else:
            _tell(salvaged, out)


def _tell(salvaged: Salvaged, out: Path) -> None:
    source = salvaged.source
    rows = [
        ("kept", f"{count_text(salvaged.kept_batches, 'batch')}, {count_text(salvaged.kept_records, 'record')}"),
        ("dropped", f"{count_text(salvaged.dropped_records, 'record')}, and what cannot be told apart in "
                    f"{count_text(source.damaged_bytes, 'damaged byte')}"),
        ("epoch", f"{salvaged.epoch}, above all that were in use"),
    ]  # fmt: skip
    for log in salvaged.retained:
        says = count_text(log.messages, "message")
        if log.damaged:
            says += f"; readers skip {count_text(log.damaged, 'damaged place')}"
        if log.unread:
            says += f"; cannot be read: {', '.join(log.unread)}"
        rows.append((f"retained log {log.number}", says))
    print_table(("what", str(out)), rows, "", prose=True)
    print_risks(salvaged.risks)
    note(f"next: minibroker serve --data-dir {out}")


def _as_map(salvaged: Salvaged, out: Path) -> dict[str, Any]:
    return {
        "out": str(out),
        "source_whole": salvaged.source.whole,
        "kept_batches": salvaged.kept_batches,
        "kept_records": salvaged.kept_records,
        "dropped_records": salvaged.dropped_records,
        "damaged_bytes": salvaged.source.damaged_bytes,
        "epoch": salvaged.epoch,
        "retained": [asdict(each) for each in salvaged.retained],
        "queues": [asdict(risk) for risk in salvaged.risks],
    }
