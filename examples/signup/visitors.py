"""The people who sign up: real HTTP requests, each with its own measured time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import DemoError

NAMES = ("Grace", "Alan", "Ada", "Edsger", "Barbara", "Donald", "Frances", "Niklaus", "Margaret")
REQUEST_SECONDS = 60.0  # the longest that a visitor waits


@dataclass(frozen=True, slots=True)
class Answer:
    """How a signup went."""

    name: str
    status: int
    milliseconds: float
    detail: dict[str, Any]  # the body of the answer

    @property
    def user_id(self) -> int:
        """The user, if the signup succeeded (201)."""
        user_id: int = self.detail["user_id"]
        return user_id


def forms(count: int, photo: Path, mistyped: str) -> list[dict[str, str]]:
    """Return `count` filled-in forms; the third, Ada's, has the mistyped address."""
    people = [
        {"name": name, "email": f"{name.lower()}@mail.example", "photo": str(photo)}
        for name in (_name(index) for index in range(count))
    ]
    people[2]["email"] = mistyped
    return people


def _name(index: int) -> str:
    round_, place = divmod(index, len(NAMES))
    return NAMES[place] if not round_ else f"{NAMES[place]}{round_ + 1}"


async def visit(
    port: int, people: Iterable[dict[str, str]], pace_seconds: float, told: Callable[[Answer], None]
) -> None:
    """Sign people up, one every `pace_seconds`, however long the earlier ones take.

    `told` gets each answer as it comes. So a slow service meets as many at once as it deserves.

    Raises:
        DemoError, in an ExceptionGroup: somebody got no answer.
    """
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for index, form in enumerate(people):
            await asyncio.sleep(started + index * pace_seconds - time.monotonic())
            group.create_task(_sign_up(port, form, told))


async def _sign_up(port: int, form: dict[str, str], told: Callable[[Answer], None]) -> None:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            answer = await _post(port, "/signup", json.dumps(form).encode())
        milliseconds = (time.perf_counter() - started) * 1_000
        status, detail = _parsed(answer)
    except (TimeoutError, OSError, ValueError) as error:
        raise DemoError(f"the signup of {form['name']} got no answer: {error!r}") from error
    told(Answer(form["name"], status, milliseconds, detail))


async def _post(port: int, path: str, body: bytes) -> bytes:
    """Send one request on a connection of its own, as a browser does at first; return the answer.

    Written by hand, because a client library costs milliseconds of processor time for each request,
    which would be counted as the service's.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return await reader.read()  # up to the end of the connection
    finally:
        writer.close()


def _parsed(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0
    if not status:
        raise ValueError(f"not an HTTP answer: {answer[:60]!r}")
    try:
        return status, json.loads(body)
    except ValueError:  # an error page of the server, in plain text
        return status, {"detail": body.decode(errors="replace")}
