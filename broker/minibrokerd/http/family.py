"""A row of the table of metrics, and what its samples are read from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from minibrokerd.core.model.group import Group
from minibrokerd.core.model.histogram import Histogram
from minibrokerd.http.subject import Subject

MOST_ZEROS: Final = 1_000  # queues of which rare counters are shown that are 0
Labels = tuple[tuple[str, str], ...]
Samples = Iterable[tuple[Labels, float]]
OfQueues = Callable[[Sequence[Group], int], Sequence[float]]  # of their groups, at a log time in ms


@dataclass(frozen=True, slots=True)
class Family:
    """One row; printed as one row of docs/operating.md. `name` has no `_total`, which the writer adds.

    Exactly one of these: `read` returns all samples, `of_queues` the values of some queues (by the labels that
    stand beside its name), `counter` names what is counted of each queue, `histogram` returns one, `histograms`
    one for each set of labels.
    """

    name: str
    kind: str  # gauge, counter, histogram or info
    meaning: str
    read: Callable[[Subject], Samples] | None = None
    of_queues: Mapping[str, OfQueues] | None = None  # by the end of the label set: `,state="ready"`
    counter: str = ""
    # A counter of which most queues have none: of very many queues, zeros are left out.
    rare: bool = False
    early: bool = False  # known while the broker recovers, too
    labels: tuple[str, ...] = ()
    histogram: Callable[[Subject], Histogram] | None = None
    histograms: Callable[[Subject], Iterable[tuple[Labels, Histogram]]] | None = None
    exponents: Sequence[int] = ()  # of its bounds: powers of two
    scale: int = 1  # what they are divided by
    goes_on: bool = False  # a counter of which the log knows how far it was before a restart

    @property
    def sample_name(self) -> str:
        """The name of its samples."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")

    @property
    def after_restart(self) -> str:
        """What a restart of the broker does to it, for the documents."""
        if self.kind in ("gauge", "info"):
            return "is looked at"
        return "goes on" if self.goes_on else "from 0"

    @property
    def help(self) -> str:
        """What it is for whoever reads the numbers: its meaning, and what a restart does to a counter."""
        ends = {"goes on": " Goes on over a restart.", "from 0": " From 0 at each start."}
        zeros = (
            f" Of more than {MOST_ZEROS:,} queues, those where it is not 0." if self.rare else ""
        )
        return self.meaning + ends.get(self.after_restart, "") + zeros
