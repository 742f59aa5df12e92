"""What `serve` was asked for, and what of it may change while the server runs: after SIGHUP it is read again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final

from minibroker.contract import limits
from minibrokerd.http.options import HttpOptions
from minibrokerd.log.filelog import DEFAULT_SEGMENT_BYTES
from minibrokerd.monitoring.webhook import Webhook
from minibrokerd.net.tls import Tls, TlsFiles
from minibrokerd.process.logs import OwnText, events
from minibrokerd.replicated.stream_address import StreamAddress

# Beside these the files of certificates and tokens are read again, which have events of their own.
RELOADABLE: Final = (
    "auto_create",
    "drain_timeout",
    "log_level",
    "max_queues",
    "memory_limit",
    "webhook",
)
NOT_SETTINGS: Final = ("reread", "warning")


class CannotReload(Exception):
    """What was read again cannot be used; what held before still holds."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `minibroker serve` was asked for."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = limits.DEFAULT_PORT
    log: StreamAddress | None = None  # None: files in the data directory
    standby: bool = False  # wait while another broker leads that log
    # Host:port that clients are sent to when this one leads; None: as it listens.
    advertise: str | None = None
    segment_bytes: int = DEFAULT_SEGMENT_BYTES
    auto_create: bool = True
    max_queues: int = limits.MAX_QUEUES
    loop: str = "uvloop"
    memory_limit: int | None = None  # bytes; None: as memory_limit.py says
    drain_timeout: float = 10.0
    log_format: str = "text"
    log_level: str = "info"
    tls: TlsFiles | None = None
    warning: str = ""  # about the environment; it is logged
    http: HttpOptions | None = field(default_factory=HttpOptions)  # None: no HTTP port
    webhook: Webhook | None = None
    # Flags, environment and file read again; raises CannotReload. None: there is nothing to be read again.
    reread: Callable[[], ServeOptions] | None = field(default=None, compare=False, repr=False)

    def try_files(self) -> None:
        """Read the files that these options name, as a start would; TlsRefused."""
        if self.tls is not None:
            Tls(self.tls)


def reloaded(options: ServeOptions) -> ServeOptions:
    """Return the options with what was changed and may change at run time, and say what waits for a restart."""
    if options.reread is None:
        return options
    try:
        asked = options.reread()
    except CannotReload as error:
        events.error("configuration_refused", text=OwnText(error))
        return options
    names = [each.name for each in fields(options) if each.name not in NOT_SETTINGS]
    differs = [name for name in names if getattr(asked, name) != getattr(options, name)]
    changed = [name for name in differs if name in RELOADABLE]
    waits = [name for name in differs if name not in RELOADABLE]
    new = replace(options, **{name: getattr(asked, name) for name in changed})
    events.info("configuration_reloaded", changed=_listed(changed), after_restart=_listed(waits))
    return new


def _listed(names: list[str]) -> str:
    return ", ".join(name.replace("_", "-") for name in names) or "nothing"
