"""`minibroker serve`: the flags of the broker. The server itself is imported when it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from minibroker.contract import limits
from minibroker.session.address import passed_over
from minibrokerd.cli.config_file import config_options
from minibrokerd.cli.http_options import HostPort, http_of, http_options
from minibrokerd.cli.options import PortOption, data_dir_option, log_options, shared_option
from minibrokerd.cli.ranges import Duration, Size
from minibrokerd.cli.webhook_options import webhook_of, webhook_options
from minibrokerd.net.addresses import is_loopback
from minibrokerd.process.stopping import StopSignals
from minibrokerd.text.units import size_text

if TYPE_CHECKING:
    from minibrokerd.serving.configuration import ServeOptions

DEFAULT_SEGMENT_BYTES: Final = 64 * 1024 * 1024
PAGE_BYTES: Final = 4_096  # segments are written in whole pages
WORDS: Final = "minibroker.words"  # in the context of `serve`: what it was called with


class LogAddress(click.ParamType):  # type: ignore[type-arg]  # it takes none in older releases
    """The servers and the stream of a replicated log."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what it says; click.ParamType."""
        from minibrokerd.replicated.stream_address import StreamAddress, parse

        if isinstance(value, StreamAddress):
            return value
        try:
            return parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


PEM: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Serve(click.Command):
    """Keeps the words that it was called with, so that they can be read again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = list(args)
        return super().parse_args(ctx, args)


@click.command(cls=_Serve)
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
    "--log",
    type=LogAddress(),
    help="Keep the log in a stream of NATS JetStream, on several machines, as nats://a,b,c/stream; needs "
    "minibroker[nats]. The stream is made if there is none. Default: files in the data directory.",
)
@shared_option(
    "--standby",
    is_flag=True,
    help="With --log: follow it while another broker leads, and take over when that one ends.",
)
@shared_option(
    "--advertise",
    type=HostPort(),
    help="With --log: where clients of a broker that stands by are sent when this one leads, as HOST:PORT. "
    "Default: where it listens, by the name of the machine if that is every address.",
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
@webhook_options
@config_options
@log_options()
def serve(check_config: bool, **flags: Any) -> None:
    """Start the broker and run it until SIGTERM or SIGINT."""
    # From here on: importing the server takes a moment, and process 1 of a container has no default handlers.
    signals = StopSignals()
    signals.catch()
    options = options_of(click.get_current_context())
    if check_config:
        try_files(options)
        click.echo("the configuration is fine; nothing was started")
        return
    from minibrokerd.serving.server import serve

    sys.exit(serve(options, signals))


def try_files(options: ServeOptions) -> None:
    """Raise click.UsageError if a file that the options name cannot be used."""
    from minibrokerd.net.tls import TlsRefused

    try:
        options.try_files()
    except TlsRefused as error:
        raise click.UsageError(str(error)) from error


def refuse(flags: Mapping[str, Any]) -> None:
    """Raise click.UsageError for flags that do not go together, or would leave the port to everybody."""
    host = flags["host"]
    if not (flags["insecure"] or is_loopback(host) or _has_tokens(flags["data_dir"])):
        raise click.UsageError(
            f"refusing to listen on {host or 'all addresses'}: without a token, whoever reaches the port may read "
            "and end every message. Make one with `minibroker token add`, listen on 127.0.0.1, or add --insecure "
            "if the network itself keeps strangers out."
        )
    if flags["standby"] and flags["log"] is None:
        raise click.UsageError("--standby needs a log that several brokers may lead: --log.")
    if flags["advertise"] and flags["log"] is None:
        raise click.UsageError("--advertise is for brokers that share a log: --log.")
    if flags["tls_cert"] is None and (flags["tls_key"] or flags["tls_client_ca"]):
        raise click.UsageError("--tls-key and --tls-client-ca need a certificate: --tls-cert.")


def options_of(context: click.Context) -> ServeOptions:
    """Return what the parameters of `serve` mean, with a way to have them read again.

    Raises:
        click.UsageError: they do not go together.
    """
    from minibrokerd.net.tls import TlsFiles
    from minibrokerd.serving.configuration import CannotReload, ServeOptions

    flags = dict(context.params)
    refuse(flags)
    del flags["check_config"]
    has_tokens = _has_tokens(flags["data_dir"])
    http = http_of(flags, insecure=flags.pop("insecure"), has_tokens=has_tokens)
    webhook = webhook_of(flags)
    cert, key, client_ca = (flags.pop(f"tls_{name}") for name in ("cert", "key", "client_ca"))
    by_default = context.get_parameter_source("port") is ParameterSource.DEFAULT
    warning = passed_over(os.environ) if by_default else ""
    words, parent = list(context.meta.get(WORDS, ())), context.parent

    def reread() -> ServeOptions:
        try:
            with serve.make_context("serve", list(words), parent=parent) as again:
                return options_of(again)
        except click.ClickException as error:
            raise CannotReload(error.format_message()) from error
        except Exception as error:  # of whatever reads a value: no file ends a broker that runs
            raise CannotReload(f"{type(error).__name__}: {error}") from error

    tls = None if cert is None else TlsFiles(cert, key, client_ca)
    return ServeOptions(
        **flags, tls=tls, http=http, webhook=webhook, warning=warning, reread=reread
    )


def _has_tokens(data_dir: Path) -> bool:
    from minibrokerd.access import token_file
    from minibrokerd.access.tokens import BadTokens

    try:
        return bool(token_file.read(data_dir))
    except BadTokens:
        return True  # the start says what is wrong with them, and ends
