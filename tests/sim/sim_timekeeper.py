"""A program of a world that has a job published every second, and looks at the end which times had one.

Nobody takes its jobs: all that were ever published lie in their queue when the world has drained.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from sim_client import Habits, SimulatedClient

from minibroker.contract.wire import pack_strings
from minibroker.session.peek import Peeks

if TYPE_CHECKING:
    from sim_world import World

QUEUE: Final = "ticks"
SECOND_MS: Final = 1_000


class Timekeeper(SimulatedClient):
    """Sets its schedule at each start, as programs do; jobs are published to the end of the world."""

    def __init__(self, world: World, misfire: str, seed: int) -> None:
        self._misfire = misfire
        self._dues: list[int] = []
        self._set_us: int | None = None  # when it first heard that its schedule stands
        self._stood_us = 0  # for how long it did before the look
        self.has_looked = False  # at all jobs
        super().__init__(world, "timekeeper", Habits(), seed)

    def start(self) -> None:
        """Begin."""
        super().start()
        fields: dict[str, object] = {"name": "tick", "queue": QUEUE, "cron": "* * * * * *"}
        fields |= {"misfire": self._misfire, "terms": {}}
        columns = pack_strings([b"", b"tick"])
        self.ask("schedule_set", fields, self._seen, 600_000, columns=columns)

    def _seen(self, value: Any, error: Exception | None) -> None:
        """Note that it stands; an error means that the connection has ended, and it is set again."""
        if error is None and self._set_us is None:
            self._set_us = self.world.loop.now_us

    def look(self, after: bytes = b"") -> None:
        """Ask for all jobs, page by page."""

        if not after and self._set_us is not None:
            self._stood_us = self.world.loop.now_us - self._set_us

        def shown(value: Any, error: Exception | None) -> None:
            if error is None:
                assert isinstance(value, Peeks)
                # The headers of one that a disk has spoilt went with its bytes.
                whole = [each for each in value if not each.info.get("damaged")]
                self._dues += [each.headers["minibroker-due-unix-ms"] for each in whole]
                if value.next:
                    self.look(value.next)
                else:
                    self.has_looked = True

        self.ask("peek", {"queue": QUEUE, "count": 1_000, "after": after}, shown)

    def violations(self, *, whole: bool) -> list[str]:
        """Return what is wrong: a time with two jobs; or with none, where each must have one (`whole`)."""
        twice = sorted(due for due, count in Counter(self._dues).items() if count > 1)
        is_idle = self._stood_us >= 2_000 * SECOND_MS and not self._dues
        found = ["nothing was published in the whole world"] if whole and is_idle else []
        found += [f"{due} has more than one job" for due in twice]
        if whole and self._misfire == "all" and self._dues:
            expected = range(min(self._dues), max(self._dues) + 1, SECOND_MS)
            missing = sorted(set(expected) - set(self._dues))
            found += [f"{due} has no job" for due in missing]
        return found

    @property
    def ticks(self) -> int:
        """How many jobs there are."""
        return len(self._dues)
