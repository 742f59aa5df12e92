"""Print the entries of a Redis stream for `minibroker import`; nothing is changed there.

    python redis_stream.py redis://localhost:6379/0 jobs [GROUP] [--field data] > jobs.jsonl

With GROUP only what that consumer group has not acked: entries that are pending, then those that it has not read.
The body is the one field that is named, else all fields as a JSON object. Needs redis-py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import redis
from carry import plain, write

PAGE = 1_000
Entry = tuple[bytes, dict[bytes, bytes]]


def entries(client: Any, stream: str, first: str) -> Iterator[Entry]:
    """Yield the entries from `first` on."""
    while found := client.xrange(stream, first, "+", PAGE):
        yield from found
        first = f"({found[-1][0].decode()}"


def pending(client: Any, stream: str, group: str) -> Iterator[Entry]:
    """Yield what consumers of the group have read and not acked; an entry that was deleted meanwhile is gone."""
    first = "-"
    while found := client.xpending_range(stream, group, first, "+", PAGE):
        for each in found:
            yield from client.xrange(stream, each["message_id"], each["message_id"])
        first = f"({found[-1]['message_id'].decode()}"


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("stream")
    parser.add_argument("group", nargs="?")
    parser.add_argument("--field")
    asked = parser.parse_args()
    with redis.Redis.from_url(asked.url) as client:
        found, last = iter(()), "-"
        if asked.group:
            found = pending(client, asked.stream, asked.group)
            (last,) = (
                f"({each['last-delivered-id'].decode()}"
                for each in client.xinfo_groups(asked.stream)
                if each["name"].decode() == asked.group
            )
        for part in (found, entries(client, asked.stream, last)):
            for id, fields in part:
                body = (
                    fields[asked.field.encode()]
                    if asked.field
                    else json.dumps(
                        {plain(name): plain(value) for name, value in fields.items()}
                    ).encode()
                )
                write(body, headers={"redis-id": id.decode()})


if __name__ == "__main__":
    main()
