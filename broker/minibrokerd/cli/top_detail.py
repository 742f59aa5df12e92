"""One queue in `minibroker top`: its numbers, what is set for it, and who consumes it or has its messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from minibroker.contract.metrics import COUNTERS
from minibroker.contract.settings import SETTINGS
from minibrokerd.cli.layout import Table, fit
from minibrokerd.cli.top_lines import Letters, Line, Style, flowed
from minibrokerd.cli.top_numbers import Seen, age_text, rate, rate_text, span_text
from minibrokerd.text.counts import count_text
from minibrokerd.text.units import duration_text

HEADS: Final = ("client", "from", "consumers", "prefetch", "held", "begun", "longest", "message")
SHARES: Final = ("p50", "p95", "p99")
STATES: Final = ("ready", "begun", "held", "delayed")


@dataclass(frozen=True, slots=True)
class Detail:
    """What a broker said of one queue at one time; `view` is None when there is no such queue."""

    overview: Mapping[str, Any]
    name: str
    at_ms: int  # of a clock that never goes back
    view: Mapping[str, Any] | None = None
    holders: Mapping[str, Any] | None = None
    times: Mapping[str, Any] | None = None

    @property
    def seen(self) -> Seen | None:
        """It as a row of the table is made of."""
        if self.view is None:
            return None
        view = self.view
        return Seen(self.at_ms, view["is_dlq"], view["oldest_ready_ms"], view["counts"])


def detail_lines(
    detail: Detail, before: Detail | None, width: int, letters: Letters
) -> Iterator[Line]:
    """Yield all that is known of a queue, in lines of `width` cells; rates are those since `before`."""
    name = letters.clean(detail.name)
    yield Line(fit(name, width, letters.ellipsis), Style.HEAD)
    if detail.view is None or detail.holders is None:
        yield Line(fit("there is no such queue", width, letters.ellipsis), Style.ALARM)
        return
    now = _now(detail.view, detail.overview["now_unix_ms"])
    parts = (now, _times(detail), _counted(detail, before), _settings(detail.view))
    for each in parts:
        for text in flowed(each, width, letters.ellipsis):
            yield Line(text)
    yield Line("")
    yield from _holders(detail, width, letters)


def _now(view: Mapping[str, Any], now_ms: int) -> Iterator[str]:
    """Yield what is in the queue."""
    counts = view["counts"]
    for state in STATES:
        yield f"{state} {counts[state]:,}"
    if counts["ready"]:
        yield f"oldest {age_text(view['oldest_ready_ms'])}"
    if counts["dead_waiting"]:
        yield f"dead_waiting {counts['dead_waiting']:,}"
    yield f"{count_text(view['live_bytes'], 'byte')} of the log"
    if view["paused"]:
        until = view["resumes_unix_ms"]
        yield "PAUSED" + (f", goes on in {age_text(max(until - now_ms, 0))}" if until else "")
    circuit = view.get("circuit")  # an older broker says nothing of it
    if circuit and circuit["state"] != "closed":
        since, until = circuit["since_unix_ms"], circuit["until_unix_ms"]
        tried = f"one tried in {age_text(max(until - now_ms, 0))}" if until else "one is tried"
        yield f"CIRCUIT {circuit['state']} for {age_text(max(now_ms - since, 0))}, {tried}"
        yield circuit["why"]
    active = view.get("active")
    if active:
        yield f"{active['client'] or 'nobody'} is active, waiting for that {active['waiting']:,}"
    yield from _retained(view)
    keys = view.get("key_circuits")
    if keys and keys["open"]:
        yield f"CIRCUITS of {count_text(keys['open'], 'key')} open"


def _retained(view: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a retained log has, or where a group of one is."""
    has, at = view.get("offsets"), view.get("group_of")  # an older broker says nothing of them
    if has:
        yield f"log of {count_text(has['messages'], 'message')}, {count_text(has['bytes'], 'byte')}"
        yield f"offsets {has['first']} to {has['next']}, groups {has['groups']:,}"
    if at:
        yield f"at offset {at['position']} of {at['log']}, lag {at['lag']:,}"


def _times(detail: Detail) -> Iterator[str]:
    """Yield how long messages wait and run of late, what consumers had nothing, how many handlers are wanted."""
    times = detail.times
    if times is None:
        return
    for name in ("waits", "runs"):
        spread = times[name]
        if spread["count"]:
            shares = (f"{share} {span_text(spread[share] * 1_000)}" for share in SHARES)
            yield f"{name} {', '.join(shares)}"
    if times["consumers"]:
        yield f"consumers idle {times['idle']:.0%}"
    if times["handlers"] is not None:
        yield f"handlers wanted {times['handlers']:,}"


def _counted(detail: Detail, before: Detail | None) -> Iterator[str]:
    """Yield what was counted since the start of the broker, and how much it grows a second."""
    now, earlier = detail.seen, before.seen if before else None
    assert now is not None
    for name in COUNTERS:
        if now.counts[name]:
            a_second = rate(name, earlier, now)
            yield f"{name} {now.counts[name]:,}" + (
                f" ({rate_text(a_second)}/s)" if a_second > 0 else ""
            )


def _settings(view: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not as it is by default, or that nothing is, and the name of the dead-letter queue."""
    settings_are_default = True
    for name, value in view["settings"].items():
        row = SETTINGS.get(name)  # a newer broker may know more
        if row is None or value != row.default:
            text = duration_text(value) if name.endswith("_ms") else value
            yield f"{name}={text}"
            settings_are_default = False
    if settings_are_default:
        yield "settings as by default"
    if view["dlq"]:
        yield f"dead letters in {view['dlq']}"


def _holders(detail: Detail, width: int, letters: Letters) -> Iterator[Line]:
    assert detail.holders is not None
    found = detail.holders["holders"]
    if not found:
        yield Line(fit("nobody consumes it or has messages of it", width, letters.ellipsis))
        return
    table = Table(HEADS, elastic=HEADS[:2], width=width, ellipsis=letters.ellipsis)
    now_ms = detail.overview["now_unix_ms"]
    lines = table.lines([_cells(each, now_ms, letters) for each in found])
    for at, text in enumerate(lines):
        yield Line(fit(text, width, letters.ellipsis), Style.PLAIN if at else Style.HEAD)
    if detail.holders["total"] > len(found):
        more = f"{detail.holders['total'] - len(found):,} more, which have less"
        yield Line(fit(more, width, letters.ellipsis))


def _cells(holder: Mapping[str, Any], now_ms: int, letters: Letters) -> list[str]:
    since_ms = holder["oldest_begun_unix_ms"]
    peer = holder["peer"] or ("in process" if holder["connected"] else "away")
    numbers = (holder[name] for name in ("consumers", "prefetch", "held", "begun"))
    return [
        letters.clean(holder["client"]),
        letters.clean(peer),
        *(f"{number:,}" for number in numbers),
        age_text(max(now_ms - since_ms, 0)) if since_ms else "-",
        holder["oldest_begun_id"] or "-",
    ]
