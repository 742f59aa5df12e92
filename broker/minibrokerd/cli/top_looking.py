"""How `minibroker top` looks at a broker: over HTTP, a page of queues at a time, in a thread of its own.

A broker with 10,000 queues is asked for them in pages, so that it does its work between two of them, and less
often: all looks together may not take more than a small part of its time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import click

from minibrokerd.cli.http_api import Away, HttpApi, Refused
from minibrokerd.cli.top_detail import Detail
from minibrokerd.cli.top_numbers import Look, Seen

PAGE: Final = 500  # queues that are asked for at a time
MOST_HOLDERS: Final = 100
# Between two looks, for each queue: the broker needs less than a tenth of it to tell of one.
PAUSE_S: Final = 250e-6


@dataclass(frozen=True, slots=True)
class Failed:
    """A look that came to nothing; the text says why."""

    text: str
    refused: bool  # by a broker that is there, as when the token is good no more


# An error of our own ends the command, in the thread that has the terminal.
Found = Look | Detail | Failed | Exception


def look_at(api: HttpApi, filter: str) -> Look:
    """Return the broker and its queues, those that fit `filter`.

    Raises:
        Away: nobody answers.
        Refused: it has said no.
    """
    overview = api.get("overview")
    queues: dict[str, Seen] = {}
    after = ""
    while overview["phase"] != "recovering":
        page = api.get("queues", match=filter, count=PAGE, after=after)
        at_ms = time.monotonic_ns() // 1_000_000
        for row in page["queues"]:
            shared = row["is_dlq"], row["oldest_ready_ms"], row["counts"]
            queues[row["name"]] = Seen(at_ms, *shared, row["wait_p95_ms"], row["run_p95_ms"])
        after = page["next"]
        if not after:
            break
    return Look(overview, queues)


def look_into(api: HttpApi, queue: str) -> Detail:
    """Return one queue, and who has its messages; raises as `look_at` does."""
    overview, path = api.get("overview"), f"queues/{quote(queue, safe='')}"
    at_ms = time.monotonic_ns() // 1_000_000
    try:
        view, holders = api.get(path), api.get(f"{path}/holders", count=MOST_HOLDERS)
        times = api.get(f"{path}/times")
    except Refused as error:
        if error.status != 404:
            raise
        return Detail(overview, queue, at_ms)
    return Detail(overview, queue, at_ms, view, holders, times)


def pause_s(look: Look) -> float:
    """Return the time that has to pass after a look at so many queues, before the next one."""
    return len(look.queues) * PAUSE_S


class Looker:
    """Looks again and again, and calls `found` after each look, from its thread; never once it is closed."""

    def __init__(
        self, api: HttpApi, filter: str, every_s: float, found: Callable[[], object]
    ) -> None:
        self.results: deque[Found] = deque()
        self.asked_s: float | None = None  # since when an answer is waited for, monotonic
        self._api = api
        self._wanted = filter, ""
        self._every_s = every_s
        self._found = found
        self._wakes = threading.Condition()
        self._at_once = False
        self._paused = False
        self._closed = False
        # The flags of the command, as --timeout, are known by thread.
        self._context = click.get_current_context()
        self._thread = threading.Thread(target=self._run, name="looker", daemon=True)
        self._thread.start()

    def wish(self, filter: str, queue: str, *, paused: bool, at_once: bool) -> None:
        """Look at these queues from now on, or into the one called `queue`; not while `paused`, or at once."""
        with self._wakes:
            self._wanted, self._paused = (filter, queue), paused
            self._at_once = self._at_once or at_once
            self._wakes.notify()

    def close(self) -> None:
        """Look no more; a look that is under way is not waited for."""
        with self._wakes:
            self._closed = True
            self._wakes.notify()

    def _run(self) -> None:
        with self._context.scope(cleanup=False):
            due_s = time.monotonic() + self._every_s
            while (wanted := self._due(due_s)) is not None:
                begun_s = self.asked_s = time.monotonic()
                found = self._look(*wanted)
                self.asked_s = None
                with self._wakes:
                    if self._closed:
                        return
                    self.results.append(found)
                    self._found()
                rest_s = pause_s(found) if isinstance(found, Look) else 0.0
                due_s = max(begun_s + self._every_s, time.monotonic() + rest_s)

    def _due(self, due_s: float) -> tuple[str, str] | None:
        """Wait until the next look is due; return what it is for, None: it is closed."""
        with self._wakes:
            while not self._closed and not self._at_once:
                left_s = due_s - time.monotonic()
                if not self._paused and left_s <= 0:
                    break
                self._wakes.wait(None if self._paused else left_s)
            self._at_once = False
            return None if self._closed else self._wanted

    def _look(self, filter: str, queue: str) -> Found:
        try:
            return look_into(self._api, queue) if queue else look_at(self._api, filter)
        except Away as error:
            return Failed(error.cause, refused=False)
        except Refused as error:
            return Failed(str(error), refused=True)
        except Exception as error:  # noqa: BLE001  # it is raised where it does not go unseen
            return error
