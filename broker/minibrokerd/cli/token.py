"""`minibroker token`: who may log in, and what he may do. Changes the data directory, of a running server too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from minibrokerd.access import token_file
from minibrokerd.access.rights import Right
from minibrokerd.access.tokens import MAX_TOKENS, NAME, BadTokens, Row, check_patterns, make
from minibrokerd.cli.group import Group
from minibrokerd.cli.options import data_dir_option, json_option, option
from minibrokerd.cli.printing import fail, note, print_json, print_table, say_line
from minibrokerd.cli.ranges import Duration, Size
from minibrokerd.process import exits

FIRST: Final = (
    "This is the first token: from now on nobody logs in without one, and clients that are connected without are "
    "cut off."
)
ONCE: Final = (
    "It is shown this once; only its hash is kept. Give it to clients as MINIBROKER_TOKEN."
)


@click.group(cls=Group)
def token() -> None:
    """Who may log in, and what he may do.

    A running server takes a change within a second: new tokens are good, connections of revoked ones end.
    """


def _rights(context: click.Context, parameter: click.Parameter, value: str) -> list[Right]:
    try:
        return sorted({Right(word.strip()) for word in value.split(",")}, key=list(Right).index)
    except ValueError as error:
        known = ", ".join(right.value for right in Right)
        raise click.BadParameter(f"{value!r} is no list of {known}") from error


def _patterns(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    patterns = [word.strip() for word in value.split(",")]
    try:
        check_patterns(patterns)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return patterns


def _name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not NAME.fullmatch(value):
        raise click.BadParameter(f"{value!r}: use 1 to 64 of A-Z a-z 0-9 . _ -")
    return value


_expires = option(
    "--expires",
    type=Duration(1_000),
    help="How long it is valid, like 30d; left out: until revoked.",
)


@token.command()
@click.argument("name", callback=_name)
@option(
    "--queues",
    required=True,
    callback=_patterns,
    help="Names of the queues it is for, with * for any characters, separated by commas: 'mail.*,audit'. A "
    "dead-letter queue goes with its source.",
)
@option(
    "--may",
    required=True,
    callback=_rights,
    help="What it may do there: publish, consume, manage, admin, separated by commas.",
)
@_expires
@option("--max-connections", type=click.IntRange(0), default=0, help="Connections; 0: no limit.")
@option(
    "--max-queues", type=click.IntRange(0), default=0, help="Queues of these names; 0: no limit."
)
@option(
    "--max-messages",
    type=click.IntRange(0),
    default=0,
    help="Messages in its queues from which on its publishes get `busy`; 0: no limit.",
)
@option(
    "--max-bytes",
    type=Size(0),
    default="0",
    help="As --max-messages, in bytes of what they keep in the log.",
)
@option(
    "--max-rate",
    type=click.IntRange(0),
    default=0,
    help="Messages published in a second; 0: no limit.",
)
@data_dir_option
@json_option
def add(
    name: str,
    queues: list[str],
    may: list[Right],
    expires: float | None,
    data_dir: Path,
    as_json: bool,
    **limits: int,
) -> None:
    """Make a token called NAME, and print it: the only time that it is shown."""
    with _changing(data_dir) as rows:
        if any(row.name == name for row in rows):
            raise click.UsageError(
                f"there is a token {name!r} already: `minibroker token rotate` makes another one with the same "
                "rights, `token revoke` ends it"
            )
        if len(rows) >= MAX_TOKENS:
            fail(f"there are as many tokens as can be ({MAX_TOKENS}); revoke some", exits.REFUSED)
        now = int(time.time())
        ends = _end(now, expires)
        made = make(
            os.urandom, rows, name=name, queues=queues, may=may, created=now, expires=ends, **limits
        )
        is_first = not rows and token_file.signature(data_dir) is None
        rows.append(made.row)
    _show(made.text, made.row, as_json)
    if is_first:
        note(FIRST)


@token.command()
@click.argument("name", callback=_name)
@_expires
@data_dir_option
@json_option
def rotate(name: str, expires: float | None, data_dir: Path, as_json: bool) -> None:
    """Make another token for NAME, with the same rights, and print it.

    Those that it has stay valid until `token revoke` ends them by their ids: give the new one to clients first.
    """
    with _changing(data_dir) as rows:
        before = _named(rows, name)[-1]
        now = int(time.time())
        fields = {field: getattr(before, field) for field in Row.__struct_fields__}
        del fields["id"], fields["hash"]
        made = make(os.urandom, rows, **(fields | {"created": now, "expires": _end(now, expires)}))
        rows.append(made.row)
    _show(made.text, made.row, as_json)


@token.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME_OR_ID...")
@data_dir_option
def revoke(names: tuple[str, ...], data_dir: Path) -> None:
    """End tokens: all of a NAME, or the one with an id. Their connections end within a second."""
    with _changing(data_dir) as rows:
        ended = [row for name in names for row in _named(rows, name)]
        rows[:] = [row for row in rows if row not in ended]
    for row in ended:
        say_line(f"revoked {row.name} {row.id}")
    if not rows:
        note("No token is left, so nobody can log in now; `minibroker token add` makes one.")


@token.command(name="list")
@data_dir_option
@json_option
def list_(data_dir: Path, as_json: bool) -> None:
    """Show the tokens: everything but the secrets, which are not kept."""
    if not data_dir.is_dir():
        fail(f"there is no data directory {data_dir}; name it with --data-dir", exits.NOT_WRITABLE)
    try:
        rows = token_file.read(data_dir)
    except BadTokens as error:
        fail(f"{data_dir / token_file.NAME}: {error}", exits.NOT_WRITABLE)
    if rows is None:
        note("There are no tokens: whoever reaches the port may do everything.")
    if as_json:
        for row in rows or ():
            print_json(_public(row))
        return
    now = time.time()
    lines = (
        [
            row.name,
            row.id,
            ",".join(row.queues),
            ",".join(right.value for right in row.may),
            _date(row.created),
            "never"
            if not row.expires
            else _date(row.expires) + (" (over)" if row.expires <= now else ""),
            _limits(row),
        ]
        for row in rows or ()
    )
    heads = ("name", "id", "queues", "may", "created", "expires", "limits")
    print_table(heads, lines, "")


@contextmanager
def _changing(data_dir: Path) -> Iterator[list[Row]]:
    try:
        with token_file.changing(data_dir) as rows:
            yield rows
    except BadTokens as error:
        fail(f"{data_dir / token_file.NAME}: {error}; nothing was changed", exits.NOT_WRITABLE)
    except OSError as error:
        fail(f"cannot write the tokens in {data_dir}: {error}", exits.NOT_WRITABLE)


def _named(rows: list[Row], name: str) -> list[Row]:
    found = [row for row in rows if name in (row.name, row.id)]
    if not found:
        raise click.UsageError(f"there is no token {name!r}; `minibroker token list` shows them")
    return found


def _end(now: int, expires: float | None) -> int:
    return 0 if expires is None else now + round(expires)


def _show(text: str, row: Row, as_json: bool) -> None:
    if as_json:
        print_json({"token": text, **_public(row)})
    else:
        say_line(text)
    note(ONCE)


def _public(row: Row) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in row.__struct_fields__ if name != "hash"}
    return fields | {"may": [right.value for right in row.may]}


def _limits(row: Row) -> str:
    limits = {name: getattr(row, name) for name in row.__struct_fields__ if name.startswith("max_")}
    return " ".join(
        f"{name.removeprefix('max_')}={value}" for name, value in limits.items() if value
    )


def _date(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%MZ")
