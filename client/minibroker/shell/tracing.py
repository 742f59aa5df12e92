"""Whether a connection is traced. OpenTelemetry is an extra: this module is all that runs where it is not used.

A program that wants traces sets up a provider, which loads OpenTelemetry. So one look at what is loaded tells, and
nothing is imported for it. What is traced is made of other classes (aio/traced.py, sync/traced.py): what publishes
and consumes without traces holds no question about them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from minibroker.session.arguments import Options

if TYPE_CHECKING:
    from minibroker.shell.telemetry import Telemetry

CARRIED: Final = "trace"  # field of a message for a process: what is current where it comes from
NOTHING: Final[AbstractContextManager[None]] = nullcontext()
EXTRA: Final = "tracing={!r} needs OpenTelemetry: pip install 'minibroker[otel]'"


def telemetry_for(options: Options) -> Telemetry | None:
    """Return what makes the spans and metrics of a connection; None if nobody is there to take them.

    Raises:
        ModuleNotFoundError: they were asked for by name, and the extra is not installed.
    """
    mode = options.tracing
    if mode == "off" or (mode == "auto" and not _is_provided()):
        return None
    try:
        from minibroker.shell.telemetry import Telemetry
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(EXTRA.format(mode), name=error.name) from error
    return Telemetry(options)


def begin_tracing(driver: Any, make_message: Any) -> bool:
    """Have a driver's messages made by `make_message` from now on, if its connection is traced; return that."""
    telemetry = driver.telemetry or telemetry_for(driver.options)
    if telemetry is None:
        return False
    driver.telemetry = telemetry
    driver.make_message = driver.session.make = make_message
    return True


def _is_provided() -> bool:
    """Return whether the program has set up a provider of traces or of metrics."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    metrics: Any = sys.modules.get("opentelemetry.metrics")
    return (trace is not None and _is_real(trace.get_tracer_provider())) or (
        metrics is not None and _is_real(metrics.get_meter_provider())
    )


def _is_real(provider: object) -> bool:
    """Return whether it does something: those of the API itself stand for one that is missing."""
    return not type(provider).__module__.startswith(
        ("opentelemetry.trace", "opentelemetry.metrics")
    )


def current_ids() -> dict[str, str]:
    """Return `trace_id` and `span_id` of the span that is current here, as a log has them; empty without one."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    at = trace.get_current_span().get_span_context()
    if not at.is_valid:
        return {}
    return {"trace_id": f"{at.trace_id:032x}", "span_id": f"{at.span_id:016x}"}


def carried() -> dict[str, dict[str, str]]:
    """Return what a message for another process carries, so that its spans are those of the span here."""
    if not current_ids():
        return {}
    from minibroker.shell.telemetry import packed_context

    return {CARRIED: packed_context()}


def within(fields: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Return a block that runs in the context that a message carries, in the process that it was sent to."""
    if CARRIED not in fields:
        return NOTHING
    from minibroker.shell.telemetry import unpacked_context

    return unpacked_context(fields[CARRIED])
