"""Whoever calls the two shops: each request is tried again until it is answered, within one deadline."""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass
from time import monotonic

AGAIN_S = 0.1
LAST_S = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A request that was answered: with the queue and the id of its message, after so many seconds."""

    number: int
    queue: str
    id: str
    seconds: float


class Shoppers:
    """Some threads that make `count` requests; every second one is for the second port."""

    def __init__(self, ports: tuple[int, int], count: int, at_once: int, deadline_s: float) -> None:
        self.answers: list[Answer] = []
        self.failed: list[str] = []
        self.tries = 0
        self._ports = ports
        self._numbers = iter(range(count))
        self._deadline_s = self._call_s = deadline_s
        self._changed = threading.Condition()
        self._never = threading.Event()
        self._threads = [threading.Thread(target=self._call_all) for _ in range(at_once)]
        for thread in self._threads:
            thread.start()

    def await_answers(self, count: int, within_s: float) -> None:
        """Return when so many requests are over."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._over() >= count, within_s), (
                f"{self._over()} of {count} requests are over: one hangs"
            )

    def _over(self) -> int:
        return len(self.answers) + len(self.failed)

    def close(self) -> None:
        """Begin nothing further, and wait for what runs."""
        self._numbers, self._deadline_s = iter(()), 0.0
        for thread in self._threads:
            thread.join(LAST_S)

    def _call_all(self) -> None:
        while (number := self._next()) is not None:
            began_s, trouble = monotonic(), "no try"
            answer = None
            while answer is None and monotonic() - began_s < self._deadline_s:
                answer, trouble = self._tried(number)
                if answer is None:
                    self._never.wait(AGAIN_S)
            with self._changed:
                if answer is None:
                    self.failed.append(f"{number}: {trouble}")
                else:
                    queue, id = answer.split()
                    self.answers.append(Answer(number, queue, id, monotonic() - began_s))
                self._changed.notify_all()

    def _next(self) -> int | None:
        with self._changed:
            return next(self._numbers, None)

    def _tried(self, number: int) -> tuple[str | None, str]:
        link = http.client.HTTPConnection(
            "127.0.0.1", self._ports[number % 2], timeout=self._call_s
        )
        self.tries += 1
        try:
            link.request("POST" if number % 2 == 0 else "GET", f"/{number}")
            answer = link.getresponse()
            text = answer.read().decode("utf-8", "replace")
            return (text, "") if answer.status == 200 else (None, f"{answer.status} {text[:500]}")
        except (OSError, http.client.HTTPException) as error:
            return None, repr(error)
        finally:
            link.close()
