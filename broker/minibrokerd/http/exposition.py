"""The exposition formats of Prometheus and OpenMetrics: which one a scraper gets, and how samples are written.

Written here and not by prometheus-client (docs/decisions/0028): that library makes an answer in one go, and 10,000
queues would stop the loop for as long. Here an answer is made in slices of some thousand lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from minibrokerd.core.model.histogram import Histogram
from minibrokerd.http.families import FAMILIES
from minibrokerd.http.family import MOST_ZEROS, Family, Labels
from minibrokerd.http.portion import PORTION_QUEUES, Portion
from minibrokerd.http.subject import Subject

SLICE_HISTOGRAMS: Final = 20  # with labels, written without a turn of the loop in between
# Given to the transport at a time: a send costs as much as 500 lines, and a text of 128 KiB is memory that the
# system has to hand out anew.
SEND_BYTES: Final = 96 * 1024
UNITS: Final = ("seconds", "bytes", "ratio")


@dataclass(frozen=True, slots=True)
class Format:
    """One format; what is announced is what is written, whatever version was asked for beside it."""

    kind: str
    version: str
    open_metrics: bool

    @property
    def content_type(self) -> str:
        """The value of the header of the answer."""
        return f"{self.kind}; version={self.version}; charset=utf-8"


TEXT: Final = Format("text/plain", "0.0.4", open_metrics=False)
OPEN_METRICS: Final = Format("application/openmetrics-text", "1.0.0", open_metrics=True)
FORMATS: Final = (TEXT, OPEN_METRICS)  # of two that are as welcome, the first


def choose(accept: str) -> Format:
    """Return the format that an `Accept` header wants most; TEXT where it wants none of them.

    A range counts for a format when type and version fit; the most exact one gives the weight, as RFC 9110 says.
    """
    weights: dict[Format, tuple[int, float]] = {}
    for one in accept.split(","):
        kind, *parameters = (part.strip() for part in one.split(";"))
        said = dict(_pair(each) for each in parameters)
        weight = _weight(said.get("q", "1"))
        for form in FORMATS:
            exact = _exactness(kind.lower(), said.get("version"), form)
            if exact and (exact, weight) > weights.get(form, (0, -1.0)):
                weights[form] = exact, weight
    wanted = {form: weight for form, (_, weight) in weights.items() if weight > 0}
    return max(FORMATS, key=lambda form: wanted.get(form, 0.0)) if wanted else TEXT


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), value.strip().strip('"')


def _weight(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0) if text.lower() not in ("nan", "inf") else 0.0
    except ValueError:
        return 0.0


def _exactness(kind: str, version: str | None, form: Format) -> int:
    """Return how exactly a range names a format; 0: not at all."""
    if kind == form.kind:
        return 0 if version not in (None, form.version) else 3 + (version is not None)
    return {"*/*": 1, f"{form.kind.partition('/')[0]}/*": 2}.get(kind, 0)


async def write(
    subject: Subject, form: Format, families: Iterable[Family] = tuple(FAMILIES.values())
) -> AsyncIterator[bytes]:
    """Yield an answer to a scrape, in slices between which the loop turns."""
    ready = subject.is_open
    if ready and subject.talkers is not None:
        await subject.talkers.look()
    families = tuple(families)
    portions = await _portions(subject, families) if ready else []
    small: list[str] = []
    for family in families:
        if not (ready or family.early):
            continue
        small.extend(_head(family, form))
        if family.read is not None:
            small.extend(
                _line(family.sample_name, labels, value) for labels, value in family.read(subject)
            )
            continue
        if family.histogram is not None:
            small.append(_buckets(family, (), family.histogram(subject)))
            continue
        if family.histograms is not None:
            for at, (labels, histogram) in enumerate(family.histograms(subject), 1):
                small.append(_buckets(family, labels, histogram))
                if not at % SLICE_HISTOGRAMS:
                    await asyncio.sleep(0)
            continue
        for portion in portions:
            small.extend(portion.lines(family))
            if sum(map(len, small)) >= SEND_BYTES:
                yield _sent(small)
                small.clear()
                await asyncio.sleep(0)
    if form.open_metrics:
        small.append("# EOF")
    if small:
        yield _sent(small)


async def _portions(subject: Subject, families: Iterable[Family]) -> list[Portion]:
    """Look at all queues, a portion in each turn of the loop."""
    queues = list(subject.store.queues.values())
    own = [family for family in families if family.of_queues is not None or family.counter]
    hides, found = len(queues) > MOST_ZEROS, []
    for at in range(0, len(queues), PORTION_QUEUES):
        now_ms = subject.engine.clock.now_ms()
        found.append(Portion(queues[at : at + PORTION_QUEUES], own, now_ms, hides=hides))
        await asyncio.sleep(0)
    return found


def _sent(lines: list[str]) -> bytes:
    return "\n".join([*lines, ""]).encode()


def _head(family: Family, form: Format) -> Iterator[str]:
    name, kind = family.name, family.kind
    if not form.open_metrics:  # which has no info, and names a family as its samples
        name, kind = family.sample_name, "gauge" if kind == "info" else kind
    yield f"# HELP {name} {_escaped_help(family.help, form)}"
    yield f"# TYPE {name} {kind}"
    unit = name.rpartition("_")[2]
    if form.open_metrics and unit in UNITS:
        yield f"# UNIT {name} {unit}"


def _escaped_help(text: str, form: Format) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if form.open_metrics else text


def _buckets(family: Family, labels: Labels, histogram: Histogram) -> str:
    own = _shown(labels)
    inside, alone = own + "," * bool(own), f"{{{own}}}" if own else ""
    values: list[object] = []
    for below in (*histogram.up_to(family.exponents), histogram.count):
        values += (inside, below)
    values += (alone, histogram.total / family.scale, alone, histogram.count)
    template = _histogram_template(family.name, tuple(family.exponents), family.scale)
    return template % tuple(values)


@cache
def _histogram_template(name: str, exponents: tuple[int, ...], scale: int) -> str:
    """Return the lines of a histogram, with places for its labels and its numbers."""
    bounds = [*(str(2**exponent / scale) for exponent in exponents), "+Inf"]
    lines = [f'{name}_bucket{{%sle="{bound}"}} %d' for bound in bounds]
    return "\n".join([*lines, f"{name}_sum%s %s", f"{name}_count%s %d"])


def _line(name: str, labels: Labels, value: float) -> str:
    shown = _shown(labels)
    return f"{name}{{{shown}}} {_number(value)}" if shown else f"{name} {_number(value)}"


def _shown(labels: Labels) -> str:
    return ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)


def _number(value: Any) -> str:
    return repr(value) if isinstance(value, int) or value != int(value) else str(int(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
