"""The flags of `serve` for its webhook, checked before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from minibrokerd.cli.options import shared_option
from minibrokerd.monitoring.changes import TYPES

Function = TypeVar("Function", bound=Callable[..., Any])
MAX_SECRET_CHARS: Final = 1_000


def webhook_options(function: Function) -> Function:
    """Add the flags to `serve`; `webhook_of` makes one value of them."""
    for add in (
        shared_option(
            "--webhook-events",
            type=click.Choice(TYPES),
            multiple=True,
            help="What the webhook is told; may be given more than once; left out: all.",
        ),
        shared_option(
            "--webhook-secret-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="File with the secret that calls are signed with: whsec_ and base64 of 24 to 64 bytes.",
        ),
        shared_option(
            "--webhook",
            metavar="URL",
            help="Called when a check changes its level and when there are new dead letters, "
            "as Standard Webhooks say.",
        ),
    ):
        function = add(function)
    return function


def webhook_of(flags: dict[str, Any]) -> Any:
    """Take the flags out of `flags`; return the `Webhook` that they mean, None: there is none.

    Raises:
        click.UsageError: its address or its secret cannot be used.
    """
    from minibrokerd.monitoring.webhook import BadWebhook, Webhook, checked_url, key_of

    url, path, types = (flags.pop(f"webhook{name}") for name in ("", "_secret_file", "_events"))
    if not url:
        if path or types:
            raise click.UsageError("--webhook-secret-file and --webhook-events need --webhook.")
        return None
    if path is None:
        raise click.UsageError("--webhook needs --webhook-secret-file: calls are signed.")
    try:
        address = checked_url(url)
    except BadWebhook as error:
        raise click.UsageError(f"--webhook: {error}") from error
    try:
        with path.open(encoding="utf-8") as file:
            secret = file.read(MAX_SECRET_CHARS).strip()
        return Webhook(address, key_of(secret), tuple(types) or TYPES)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise click.UsageError(f"the file of --webhook-secret-file cannot be read: {why}") from None
    except BadWebhook as error:
        raise click.UsageError(f"--webhook-secret-file: {error}") from error
