"""`minibroker events`: what the broker says in its log, from anywhere, as it happens.

Whoever follows is told of whatever it may have missed: events that were dropped before they could be read, and a
broker that was started again, which begins to count anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.client import HTTPException, HTTPResponse
from typing import Any, Final

import click

from minibrokerd.cli.http_api import Away, HttpApi, Refused, asking, http_option
from minibrokerd.cli.options import json_option, option, timeout_option
from minibrokerd.cli.printing import note, print_json, say_line
from minibrokerd.process.logs import LEVELS, event_words

SILENCE_S: Final = 30.0  # the broker gives a sign of life every 10 s
# Before each try to reach a broker that has gone; then the last again.
WAITS_S: Final = (0.25, 0.5, 1.0, 2.0, 5.0)
Fits = Callable[[Mapping[str, Any]], bool]


def _where(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, str]]:
    pairs = [value.partition("=") for value in values]
    for value, (name, sign, _) in zip(values, pairs, strict=True):
        if not (name and sign):
            raise click.BadParameter(f"{value!r} is not FIELD=PATTERN, like 'queue=mail*'.")
    return [(name, pattern) for name, _, pattern in pairs]


@click.command()
@option("-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@option(
    "--count",
    type=click.IntRange(0, 500),
    default=20,
    help="How many of those that have happened to show; the broker keeps 500.",
)
@option(
    "--level",
    type=click.Choice(list(LEVELS)),
    default="debug",
    help="The least important ones that are shown; the broker has them from its --log-level on.",
)
@option("--event", "names", multiple=True, help="Only these: a name or a pattern, like 'queue_*'.")
@option(
    "--where",
    multiple=True,
    callback=_where,
    metavar="FIELD=PATTERN",
    help="Only those with such a field, like 'queue=mail*'; all that are given must fit.",
)
@http_option
@timeout_option
@json_option
def events(
    follow: bool,
    count: int,
    level: str,
    names: tuple[str, ...],
    where: list[tuple[str, str]],
    http: str,
    as_json: bool,
) -> None:
    """Show the newest events of the broker's log, and with -f those that follow.

    What may be missing is said on standard error, or with --json as an object with `missed`.
    """

    def fits(event: Mapping[str, Any]) -> bool:
        fields = event["fields"]
        return (
            LEVELS.get(event["level"], 0) >= LEVELS[level]
            and (not names or any(fnmatchcase(event["event"], name) for name in names))
            and all(name in fields and fnmatchcase(str(fields[name]), like) for name, like in where)
        )

    with asking(http) as api:
        found = api.get("events")
        shown = [event for event in found["events"] if fits(event)]
        for event in shown[-count:] if count else []:
            _show(event, as_json)
        if follow:
            _follow(api, found["last"], fits, as_json)


def _show(event: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(event)
    else:
        words = event_words({"event": event["event"], **event["fields"]})
        say_line(f"{event['time']} {event['level']:<7} {words}")


@dataclass(slots=True)
class _Place:
    """What was seen last."""

    run: int = 0  # 0: none was heard of
    number: int = 0

    @property
    def as_header(self) -> dict[str, str]:
        return {"Last-Event-ID": f"{self.run}-{self.number}"} if self.run else {}


def _follow(api: HttpApi, last: int, fits: Fits, as_json: bool) -> None:
    """Show what happens until somebody ends it; of a broker that goes, wait until it is back."""
    place, tries = _Place(number=last), 0
    while True:
        try:
            answer = api.open(
                "events/stream", place.as_header, silence_s=SILENCE_S, after=place.number
            )
        except (Away, Refused) as error:
            if place.run == 0 or (isinstance(error, Refused) and error.status < 500):
                raise
            if not tries:
                note(f"the broker is away from {api.url}; asking until it is back")
            time.sleep(WAITS_S[min(tries, len(WAITS_S) - 1)])
            tries += 1
            continue
        if tries:
            note(f"the broker is back at {api.url}")
        tries = 0
        for event in _read(answer, place, as_json):
            if fits(event):
                _show(event, as_json)
        time.sleep(WAITS_S[0])  # it ends by itself now and then, too


def _read(answer: HTTPResponse, place: _Place, as_json: bool) -> Iterator[Any]:
    """Yield events until the stream ends or breaks; what is missing is said."""
    kind = ""
    with answer:
        while True:
            try:
                line = answer.readline()
            except (OSError, HTTPException):
                return
            if not line:
                return
            name, _, value = line.decode("utf-8", "replace").rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind == "hello":
                _greet(json.loads(value), place, as_json)
            elif name == "data":
                event = json.loads(value)
                place.number = event["number"]
                yield event


def _greet(hello: Mapping[str, int], place: _Place, as_json: bool) -> None:
    """Say what lies between what was seen last and what the broker still has."""
    started_again = place.run not in (0, hello["run"])
    if started_again:
        place.number = 0
        at = time.strftime("%H:%M:%S", time.localtime(hello["run"] / 1_000))
        text = (
            f"the broker was started again at {at}: what it said since it was last heard, "
            "and before that start, is in its own log alone"
        )
        _missed(None, text, as_json)
    place.run = hello["run"]
    lost = hello["first"] - place.number - 1
    if lost > 0:
        _missed(lost, f"{lost:,} events are missing here: the broker keeps the newest 500", as_json)


def _missed(count: int | None, text: str, as_json: bool) -> None:
    if as_json:
        print_json({"missed": count, "text": text})
    else:
        note(text)
