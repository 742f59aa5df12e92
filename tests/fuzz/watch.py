"""Runs a target on one input after the other and keeps what matters: what it raised, and what it cost."""

from __future__ import annotations

import traceback
import tracemalloc
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from targets import Target, make

MOST_MS: Final = 5.0
MOST_KIB: Final = 2048
REPETITIONS: Final = 5
MEASURED: Final = (
    97  # the memory of one input in so many is measured: it makes everything ten times slower
)


@dataclass(slots=True)
class Figures:
    """What came of the inputs of some targets; `faults` are the inputs, with what they did."""

    inputs: int = 0
    decoder: int = 0
    log: int = 0
    uncaught: int = 0
    slow: int = 0
    large: int = 0
    slowest_ms: float = 0.0
    largest_kib: float = 0.0
    faults: list[tuple[str, str]] = field(default_factory=list)  # hex, and the last lines

    def add(self, other: Figures) -> None:
        """Add the figures of another."""
        for row in fields(Figures):
            mine, its = getattr(self, row.name), getattr(other, row.name)
            worst = row.name in ("slowest_ms", "largest_kib")
            setattr(self, row.name, max(mine, its) if worst else mine + its)

    def to_json(self) -> dict[str, Any]:
        """Return what `Figures(**...)` takes."""
        return asdict(self)

    @property
    def failed(self) -> bool:
        """Whether an input did what none may do."""
        return bool(self.uncaught or self.slow or self.large)

    def __str__(self) -> str:
        return (
            f"fuzz: inputs={self.inputs} decoder={self.decoder} log={self.log} uncaught={self.uncaught} "
            f"slow={self.slow} large={self.large} "
            f"slowest_ms={self.slowest_ms:.2f} largest_kib={self.largest_kib:.0f}"
        )


class Watch:
    """One target under watch."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.figures = Figures()
        self._target: Target = make(name)
        self._seen: set[str] = set()

    def __call__(self, data: bytes) -> None:
        """Try one input."""
        figures = self.figures
        figures.inputs += 1
        if self.name == "log":
            figures.log += 1
        else:
            figures.decoder += 1
        try:
            taken_ms = self._target(data) * 1e3
            if taken_ms > max(
                MOST_MS, figures.slowest_ms
            ):  # another process may have had the caches
                taken_ms = min(self._target(data) * 1e3 for _ in range(REPETITIONS))
            figures.slowest_ms = max(figures.slowest_ms, taken_ms)
            if taken_ms > MOST_MS:
                figures.slow += self._fault("slow", data, f"{taken_ms:.1f} ms")
            if figures.inputs % MEASURED == 1:
                self._measure(data)
        except Exception:  # noqa: BLE001 - any exception is what is looked for
            self._raised(data)

    def _raised(self, data: bytes) -> None:
        lines = traceback.format_exc().splitlines()
        place = "\n".join(line for line in lines[-7:] if line.lstrip().startswith("File"))
        self.figures.uncaught += 1
        self._fault(place, data, "\n".join(lines[-7:]))
        self._target = make(self.name)  # what it was in the middle of is not to be built upon

    def _measure(self, data: bytes) -> None:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            self._target(data)
            kib = (tracemalloc.get_traced_memory()[1] - before) / 1024
        finally:
            tracemalloc.stop()
        self.figures.largest_kib = max(self.figures.largest_kib, kib)
        if kib > MOST_KIB:
            self.figures.large += self._fault("large", data, f"{kib:.0f} KiB")

    def _fault(self, place: str, data: bytes, what: str) -> int:
        if place not in self._seen:  # one input of each kind is enough to look for it
            self._seen.add(place)
            self.figures.faults.append((f"{self.name}:{data.hex()}", what))
        return 1
