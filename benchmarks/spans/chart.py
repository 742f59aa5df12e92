"""The spans of a run as a picture: a bar for each row, from the left to the right as time goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.pictures import plotting, save
from benchmarks.spans.measuring import Profile, Span
from benchmarks.spans.table import CLIENT, DISK, KERNEL, SERVER

COLOURS: Final = {CLIENT: "#4878a8", KERNEL: "#c9c9c9", SERVER: "#e0843a", DISK: "#7a5195"}
SHOWN_SHARE: Final = 0.03  # of the longest bar: a narrower span has no room for its figure


def bars(profiles: Sequence[Profile]) -> list[tuple[str, list[Span]]]:
    """Return the bars: one for each trip, one for each process of a cycle."""
    found = []
    for profile in profiles:
        title = f"{profile.row}, {profile.kind}"
        if profile.frame is None:
            found.append((title, profile.spans))
            continue
        for process in dict.fromkeys(span.process for span in profile.spans):
            spans = [span for span in profile.spans if span.process == process]
            found.append((f"{title}: a frame, {process}", spans))
    return found


def draw(profiles: Sequence[Profile], path: Path) -> None:
    """Write the picture; none where matplotlib is missing."""
    pyplot = plotting()
    if pyplot is None:
        return
    found = bars(profiles)
    longest = max(sum(span.us for span in spans) for _, spans in found)
    figure, axes = pyplot.subplots(figsize=(10, 1.2 + 0.42 * len(found)))
    labelled = set()
    for row, (_, spans) in enumerate(found):
        at = 0.0
        for span in spans:
            label = None if span.place in labelled else span.place
            labelled.add(span.place)
            colour = COLOURS[span.place]
            axes.barh(row, span.us, 0.7, at, color=colour, edgecolor="white", label=label)
            if span.us > SHOWN_SHARE * longest:
                axes.text(at + span.us / 2, row, f"{span.us:.0f}", ha="center", va="center")
            at += span.us
    axes.set_yticks(range(len(found)), [title for title, _ in found])
    axes.invert_yaxis()
    axes.set_xlabel(
        "us: medians of the spans of a message; for consume-32, what a thread does a frame"
    )
    axes.legend(fontsize="small")
    save(pyplot, figure, path)
