"""Print the values of a Redis list, oldest first, for `minibroker import`; nothing is changed there.

    python redis_list.py redis://localhost:6379/0 jobs [--oldest-last] > jobs.jsonl

`--oldest-last`: producers use LPUSH and workers BRPOP, so the oldest is at the end. Needs redis-py.
"""

from __future__ import annotations

import sys

import redis
from carry import write

PAGE = 1_000


def main(url: str, name: str, *flags: str) -> None:
    """Print the whole list, page by page, from its older end."""
    with redis.Redis.from_url(url) as client:
        size = client.llen(name)
        for start in range(0, size, PAGE):
            stop = min(start + PAGE, size)
            if "--oldest-last" in flags:
                values = client.lrange(name, -stop, -start - 1)[::-1]
            else:
                values = client.lrange(name, start, stop - 1)
            for value in values:
                write(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
