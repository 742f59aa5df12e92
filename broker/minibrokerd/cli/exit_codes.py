"""`minibroker exits`: what the exit codes of all commands mean."""

from __future__ import annotations

from dataclasses import asdict

import click

from minibrokerd.cli.options import json_option
from minibrokerd.cli.printing import print_json, print_table
from minibrokerd.process.exits import CHECK_EXITS, EXITS


@click.command()
@json_option
def exits(as_json: bool) -> None:
    """List the exit codes of all commands, and what to do about each.

    Those of `check` are at the end: they are the numbers that monitoring systems give a meaning to.
    """
    if as_json:
        for command, table in (("", EXITS), ("check", CHECK_EXITS)):
            for row in table:
                print_json({"command": command, **asdict(row)})
        return
    rows = [(str(row.code), row.meaning, row.advice) for row in (*EXITS, *CHECK_EXITS)]
    heads = ("code", "what happened", "what to do")
    print_table(heads, rows, "", heads[1:], prose=True)
