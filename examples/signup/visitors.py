"""The people who sign up: real HTTP requests, each with its own measured time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

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
    """
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=REQUEST_SECONDS) as client,
        asyncio.TaskGroup() as group,
    ):
        started = time.monotonic()
        for index, form in enumerate(people):
            await asyncio.sleep(started + index * pace_seconds - time.monotonic())
            group.create_task(_sign_up(client, form, told))


async def _sign_up(
    client: httpx.AsyncClient, form: dict[str, str], told: Callable[[Answer], None]
) -> None:
    started = time.perf_counter()
    try:
        response = await client.post("/signup", json=form)
    except httpx.HTTPError as error:
        raise DemoError(f"the signup of {form['name']} got no answer: {error!r}") from error
    milliseconds = (time.perf_counter() - started) * 1_000
    told(Answer(form["name"], response.status_code, milliseconds, _detail(response)))


def _detail(response: httpx.Response) -> dict[str, Any]:
    if response.headers.get("content-type") != "application/json":
        return {"detail": response.text}
    detail: dict[str, Any] = response.json()
    return detail
