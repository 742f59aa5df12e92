"""The `minibroker` command: what an operator types, and what the exit code says afterwards.

Each flag of `serve` can be set by an environment variable instead, so that a container needs no
command line of its own. The server is imported by `serve` alone: the other commands start faster.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from minibroker import limits
from minibrokerd import __version__, queue_commands

Function = TypeVar("Function", bound=Callable[..., Any])

DEFAULT_SEGMENT_BYTES = 64 * 1024 * 1024
PAGE_BYTES = 4_096  # segments are written in whole pages

EXIT_CODES = """\b
Exit codes:
  0   done; serve: stopped on request, all that was confirmed is kept
  1   the server refused the command, or answered too late
  2   the command line is wrong
  65  serve: the log is damaged, and nothing was changed
  69  the server cannot be reached; serve: the port is taken
  70  serve: the log could not be written; what was confirmed is kept
  71  serve: asked to stop, but the disk did not take what was left in time
  73  serve: the data directory cannot be made, read or written
  75  serve: another server holds the data directory
  76  serve: the data directory was written by a newer version
"""


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="minibroker")
def main() -> None:
    """A work-queue broker for background jobs: nothing that was confirmed is ever lost."""


main.add_command(queue_commands.publish)
main.add_command(queue_commands.consume)
main.add_command(queue_commands.stats)
main.add_command(queue_commands.dlq)


def _flag(name: str, **attributes: Any) -> Callable[[Function], Function]:
    variable = "MINIBROKER_" + name.lstrip("-").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, show_default=True, **attributes)


def _whole_pages(context: click.Context, parameter: click.Parameter, value: int) -> int:
    if value % PAGE_BYTES:
        raise click.BadParameter(f"{value} is not a multiple of {PAGE_BYTES}")
    return value


@main.command(epilog=EXIT_CODES)
@_flag(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data"),
    help="Where the log is kept; made if missing, and locked while the broker runs.",
)
@_flag("--host", default="127.0.0.1", help="Address to listen on.")
@_flag(
    "--port",
    type=click.IntRange(0, 65_535),
    default=limits.DEFAULT_PORT,
    help="Port to listen on; 0: any free one.",
)
@_flag(
    "--segment-bytes",
    type=click.IntRange(64 * 1024, 2**30),
    callback=_whole_pages,
    default=DEFAULT_SEGMENT_BYTES,
    help="Size of the files of the log.",
)
@_flag(
    "--no-auto-create", is_flag=True, help="Refuse to publish to or consume from an unknown queue."
)
@_flag(
    "--insecure", is_flag=True, help="Listen on an address that other machines reach, unprotected."
)
@_flag(
    "--loop",
    type=click.Choice(["uvloop", "asyncio"]),
    default="uvloop",
    help="The event loop to run on.",
)
def serve(
    data_dir: Path,
    host: str,
    port: int,
    segment_bytes: int,
    no_auto_create: bool,
    insecure: bool,
    loop: str,
) -> None:
    """Start the broker and run it until SIGTERM or SIGINT."""
    if not insecure and not is_loopback(host):
        raise click.UsageError(
            f"refusing to listen on {host or 'all addresses'}: this version has no passwords and "
            "no encryption, so whoever reaches the port may read and end every message. Listen on "
            "127.0.0.1, or add --insecure if the network itself keeps strangers out."
        )
    from minibrokerd.server import ServeOptions, serve

    options = ServeOptions(
        data_dir=data_dir,
        host=host,
        port=port,
        segment_bytes=segment_bytes,
        auto_create=not no_auto_create,
        loop=loop,
    )
    sys.exit(serve(options))


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches `host`; of names, only localhost is trusted."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
