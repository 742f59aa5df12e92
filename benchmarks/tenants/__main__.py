"""Tell one story at each peer, with two workers of one slot each; print what was counted, as a table of markdown.

- fair: 200 jobs of one tenant wait, ten of another come. How many start before the tenth of the other.
- rate: 30 jobs of a tenant that may start 10 a second, beside 30 of one without a limit. The starts of the first
  in its busiest second, and how many seconds the second one took.
- priority: 100 normal jobs wait, an urgent one comes. How many start before it.
- unique: the same job is added five times while it waits, and once while it runs. How often it runs.
- cron: every two seconds; worker and scheduler are killed after six, and started again two seconds later. How many
  jobs ran for how many ticks.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Final

from benchmarks.tenants.sides import SIDES, Side

LOOK_S: Final = 0.02
PATIENCE_S: Final = 60.0


class Story:
    """One part of the story at one side: a server of its own, workers, and what they wrote of their starts."""

    def __init__(self, side: Side, folder: Path) -> None:
        self.side = side
        self.server = side.server(folder / "server")
        self.file = folder / "starts"
        self.file.touch()
        self.running: list[subprocess.Popen[bytes]] = []
        self.server.start()
        self.environment = {
            **os.environ,
            "STORY_URL": self.server.url + side.path,
            "STORY_STARTS": str(self.file),
        }

    def run(self, *words: str) -> subprocess.Popen[bytes]:
        """Start the program of the side."""
        return subprocess.Popen(
            [*self.side.program(), *words], env=self.environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def add(self, *names: str) -> None:
        """Add jobs, or the schedule."""
        for name in names:
            assert self.run("add", name).wait(PATIENCE_S) == 0, f"{self.side.name}: add {name}"

    def work(self) -> None:
        """Start two workers, and the scheduler where there is one."""
        self.running += [self.run("work"), self.run("work")]

    def kill(self) -> None:
        """Kill all that `work` and `run` started."""
        for process in self.running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.running.clear()

    def starts(self) -> list[tuple[int, str]]:
        """Return when which tenant's jobs started, in ms."""
        lines = [line.split() for line in self.file.read_text().splitlines()]
        return sorted(((int(at), tenant) for at, tenant in lines), key=itemgetter(0))

    def count(self, tenant: str) -> int:
        """Return how many jobs of a tenant have started."""
        return sum(1 for _, name in self.starts() if name == tenant)

    def until(self, tenant: str, count: int) -> None:
        """Wait for so many starts."""
        end_s = time.monotonic() + PATIENCE_S
        while self.count(tenant) < count:
            assert time.monotonic() < end_s, (
                f"{self.side.name}: {self.count(tenant)} of {count} {tenant}"
            )
            time.sleep(LOOK_S)

    def close(self) -> None:
        """End it all."""
        self.kill()
        self.server.close()


def fair(story: Story) -> str:
    """How long another tenant waits."""
    story.add("big")
    story.work()
    story.until("big", 5)
    story.add("small")
    story.until("small", 10)
    names = [name for _, name in story.starts()]
    first, last = names.index("small"), len(names) - 1 - names[::-1].index("small")
    return f"{names[first:last].count('big')} between, {names[:last].count('big')} in all"


def rate(story: Story) -> str:
    """Whether a rate holds over all workers, and costs the others nothing."""
    story.add("limited", "free")
    story.work()
    story.until("free", 30)
    story.until("limited", 30)
    starts = story.starts()
    begins = [at for at, name in starts if name == "limited"]
    free = [at for at, name in starts if name == "free"]
    busiest = max(sum(at <= each < at + 1_000 for each in begins) for at in begins)
    return f"{busiest} in a second; the others done after {(free[-1] - starts[0][0]) / 1_000:.1f} s"


def priority(story: Story) -> str:
    """What starts before something urgent."""
    story.add("normal", "urgent")
    story.work()
    story.until("urgent", 1)
    names = [name for _, name in story.starts()]
    return f"{names.index('urgent')} before it"


def unique(story: Story) -> str:
    """What becomes of doubles."""
    story.add(*["same"] * 5)
    story.work()
    story.until("same", 1)
    story.add("same")
    time.sleep(12)  # nothing says that nothing more comes
    return f"{story.count('same')} runs of 6"


def cron(story: Story) -> str:
    """What becomes of a schedule when all but the server is killed."""

    def begin() -> None:
        story.work()
        if story.side.scheduler:
            story.running.append(story.run("schedule"))

    if not story.side.scheduler:
        story.add("cron")
    begin()
    story.until("cron", 1)
    time.sleep(6)
    story.kill()
    time.sleep(2)
    begin()
    story.until("cron", story.count("cron") + 1)
    time.sleep(6)
    story.kill()
    starts = [at for at, _ in story.starts()]
    return f"{len(starts)} jobs for {starts[-1] // 2_000 - starts[0] // 2_000 + 1} ticks"


PARTS: Final[dict[str, Callable[[Story], str]]] = {
    each.__name__: each for each in (fair, rate, priority, unique, cron)
}


@contextmanager
def told(side: Side) -> Iterator[Story]:
    """Give a fresh story, and end it."""
    with tempfile.TemporaryDirectory() as made:
        story = Story(side, Path(made))
        try:
            yield story
        finally:
            story.close()


def main() -> None:
    """Print a line for each side and part."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", nargs="*", default=[], help="sides, by the beginning of their names"
    )
    parser.add_argument("--part", nargs="*", default=list(PARTS), choices=list(PARTS))
    options = parser.parse_args()
    print("| part | side | what is needed | counted |\n| --- | --- | --- | --- |")
    for part in options.part:
        for side in SIDES:
            if options.only and not side.name.lower().startswith(tuple(options.only)):
                continue
            if part in side.lacks:
                print(
                    f"| {part} | {side.name} {side.version()} | not there: {side.lacks[part]} | |",
                    flush=True,
                )
                continue
            with told(side) as story:
                counted = PARTS[part](story)
            print(
                f"| {part} | {side.name} {side.version()} | {side.needs.get(part, '')} | {counted} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
