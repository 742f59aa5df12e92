"""`minibroker serve`: the flags of the broker. The server itself is imported when it starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from minibroker.contract import limits
from minibroker.session.address import passed_over
from minibrokerd.cli.http_options import http_of, http_options, is_loopback
from minibrokerd.cli.options import PortOption, data_dir_option, log_options, shared_option
from minibrokerd.cli.units import Duration, Size, size_text
from minibrokerd.stopping import StopSignals

DEFAULT_SEGMENT_BYTES: Final = 64 * 1024 * 1024
PAGE_BYTES: Final = 4_096  # segments are written in whole pages
PEM: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@data_dir_option
@shared_option("--host", default="127.0.0.1", help="Address to listen on.")
@shared_option(
    "--port",
    cls=PortOption,
    type=click.IntRange(0, 65_535),
    default=limits.DEFAULT_PORT,
    help="Port to listen on; 0: any free one.",
)
@shared_option(
    "--segment-bytes",
    type=Size(64 * 1024, 2**30, PAGE_BYTES),
    default=size_text(DEFAULT_SEGMENT_BYTES),
    help="Size of the files of the log.",
)
@shared_option(
    "--auto-create/--no-auto-create",
    default=True,
    help="Let a publish to, or a consumer of, an unknown queue make it.",
)
@shared_option(
    "--max-queues",
    type=click.IntRange(1),
    default=limits.MAX_QUEUES,
    help="Queues that clients may make; DLQs come on top.",
)
@shared_option(
    "--tls-cert",
    type=PEM,
    help="Encrypt all connections (minibrokers://): PEM file with the certificate of this server, then those "
    "that lead to its CA. Read again when it changes, and at SIGHUP.",
)
@shared_option(
    "--tls-key",
    type=PEM,
    help="PEM file with the key of that certificate; left out: it stands in the same file.",
)
@shared_option(
    "--tls-client-ca",
    type=PEM,
    help="Take only clients with a certificate that a CA of this PEM file has signed.",
)
@shared_option(
    "--insecure",
    is_flag=True,
    help="Listen on an address that other machines reach, without a token.",
)
@shared_option(
    "--loop",
    type=click.Choice(["uvloop", "asyncio"]),
    default="uvloop",
    help="The event loop to run on.",
)
@shared_option(
    "--memory-limit",
    type=Size(64 * 1024 * 1024),
    help="Memory that the server may use; publishes get `busy` when it is full of messages that cannot leave it. "
    "Default: 60 % of the machine's, or of the smallest limit of its control groups, or of `ulimit -v`.",
)
@shared_option(
    "--drain-timeout",
    type=Duration(0, 86_400_000),
    default="10s",
    help="How long a stop may take until the server leaves as after a crash.",
)
@http_options
@log_options()
def serve(
    insecure: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    **flags: Any,
) -> None:
    """Start the broker and run it until SIGTERM or SIGINT."""
    host = flags["host"]
    if not (insecure or is_loopback(host) or _has_tokens(flags["data_dir"])):
        raise click.UsageError(
            f"refusing to listen on {host or 'all addresses'}: without a token, whoever reaches the port may read "
            "and end every message. Make one with `minibroker token add`, listen on 127.0.0.1, or add --insecure "
            "if the network itself keeps strangers out."
        )
    if tls_cert is None and (tls_key or tls_client_ca):
        raise click.UsageError("--tls-key and --tls-client-ca need a certificate: --tls-cert.")
    http = http_of(flags, insecure=insecure)
    # From here on: importing the server takes a moment, and process 1 of a container has no default handlers.
    signals = StopSignals()
    signals.catch()
    from minibrokerd.server import ServeOptions, serve
    from minibrokerd.tls import TlsFiles

    asked = click.get_current_context().get_parameter_source("port") is ParameterSource.COMMANDLINE
    warning = "" if asked else passed_over(os.environ)
    tls = None if tls_cert is None else TlsFiles(tls_cert, tls_key, tls_client_ca)
    sys.exit(serve(ServeOptions(**flags, tls=tls, http=http, warning=warning), signals))


def _has_tokens(data_dir: Path) -> bool:
    from minibrokerd.access import token_file
    from minibrokerd.access.tokens import BadTokens

    try:
        return bool(token_file.read(data_dir))
    except BadTokens:
        return True  # the start says what is wrong with them, and ends
