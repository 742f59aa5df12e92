"""`minibroker log restore`: what is to be done with a back-up, or with a copy, before a server starts on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from minibrokerd.cli.offline import require_log, speaking
from minibrokerd.cli.options import data_dir_option, json_option, option
from minibrokerd.cli.printing import note, print_json, print_table, progress
from minibrokerd.log.fileops import FileOps
from minibrokerd.rescue.restoring import restore


@click.command("restore")
@data_dir_option
@option(
    "--new-sessions",
    is_flag=True,
    help="The original goes on elsewhere: its clients start anew here instead of going on with their sessions.",
)
@json_option
def restore_command(data_dir: Path, new_sessions: bool, as_json: bool) -> None:
    """Make a back-up or a copy a data directory of its own.

    Message ids, tokens and queue numbers go on above all that the original can have used since the copy was made,
    so that none ever names two things. Nothing else is changed. No server may run on the directory.
    """
    with speaking(data_dir):
        directory = require_log(data_dir)
        with progress("restoring", None, prints=False):
            restored = restore(directory, FileOps(), new_sessions=new_sessions)
    if as_json:
        print_json(asdict(restored))
        return
    rows = [
        ("epoch", f"{restored.epoch}, it was {restored.epoch_before}"),
        ("queues", f"{restored.queues}, each goes on at ids of its own"),
        ("sessions", "go on" if restored.sessions else "start anew"),
    ]
    print_table(("what", str(data_dir)), rows, "", prose=True)
    note(f"next: minibroker serve --data-dir {data_dir}")
