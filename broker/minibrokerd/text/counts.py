"""Counts with their nouns: `1 message`, `1,234 messages`."""

from __future__ import annotations


def count_text(number: int, noun: str) -> str:
    """Return how many of `noun` there are; only its last word is put into the plural, as its ending wants it."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of an English noun that has a regular one: queues, batches, policies, entries, days."""
    if noun.endswith(("ch", "sh", "s", "x")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
