"""The spans of a run as tables, and their place in docs/performance.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.spans.measuring import Profile, Span

MARKED: Final = re.compile(r"(<!-- spans -->\n).*?(<!-- end -->)", re.DOTALL)


def lines(profile: Profile) -> Iterator[str]:
    """Yield the table of one row, and what stands below it."""
    yield f"**{profile.row}, {profile.kind} client**: {_whole(profile)}"
    yield ""
    if profile.frame is None:
        yield "| span | where | us, median | us, p90 |"
        yield "| --- | --- | --- | --- |"
        for span in profile.spans:
            yield f"| {span.name} | {_where(span)} | {span.us:.1f} | {span.p90_us:.1f} |"
    else:
        yield "| a thread is in | where | us a frame | us a message | calls a frame |"
        yield "| --- | --- | --- | --- | --- |"
        for span in profile.spans:
            calls = f"{span.calls:.2f}" if span.calls else "-"
            us = f"{span.us:.1f} | {span.us / profile.frame:.2f}"
            yield f"| {span.name} | {_where(span)} | {us} | {calls} |"
    yield ""
    used = [
        f"{name} {profile.cpu_us[name]:.1f} us, {profile.switches[name]:.2f}"
        for name in sorted(profile.cpu_us)
    ]
    yield (
        f"CPU and context switches a message: {'; '.join(used)}. The stamps themselves: "
        f"{profile.stamps_us:.1f} us. fdatasync p50 {profile.sync_us:.0f} us, load {profile.load:.1f}."
    )
    yield ""


def _whole(profile: Profile) -> str:
    if profile.frame is None:
        whole = f"{profile.whole_us:.0f} us a message (p90 {profile.whole_p90_us:.0f})"
        return f"{whole}, {profile.messages:,} messages"
    return (
        f"{profile.whole_us:.0f} us a frame of {profile.frame:.1f} messages, which is "
        f"{1e6 * profile.frame / profile.whole_us:,.0f} a second, {profile.messages:,} messages"
    )


def _where(span: Span) -> str:
    return span.process if span.process.startswith(span.place) else f"{span.process}: {span.place}"


def write(profiles: Sequence[Profile], document: Path) -> None:
    """Replace the tables of a document, between its marks."""
    text = document.read_text("utf-8")
    tables = "\n".join(line for profile in profiles for line in lines(profile))
    document.write_text(MARKED.sub(lambda found: found[1] + tables + found[2], text), "utf-8")
