"""Queue settings, in one table: name, type, default, range. Server, client, CLI and docs read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from minibroker.contract import limits

OVERFLOWS: Final = (
    "block",
    "reject",
    "drop-oldest",
    "dead-letter",
)  # the first one if nothing is said
UNIQUE_MODES: Final = ("drop", "replace", "keep-latest")  # the first one if nothing is said
TIMES_BY: Final = ("queue", "key", "before-colon", "before-slash", "before-dot", "before-dash")
DURABILITIES: Final = ("sync", "lazy", "memory")  # from the safest to the fastest
REPLICATED: Final = "replicated"  # what a confirm calls sync where several machines keep the log
WORK, LOG = KINDS = "work", "log"  # what a queue is; the first one if nothing is said


@dataclass(frozen=True, slots=True)
class Setting:
    """One row; printed as one row of protocol.md, section 7."""

    name: str
    default: int | str
    low: int  # smallest value of an integer setting
    high: int  # largest value of an integer setting
    choices: tuple[str, ...]  # the values of a string setting; empty for integers
    meaning: str
    may_limit: bool = False  # an operator may say the most (decision 65); 0 is no bound


def _rate(name: str, meaning: str) -> tuple[Setting, Setting, Setting]:
    """Return the rows of a rate: a bucket of `_burst` tokens, into which so many more come in each period."""
    return (
        Setting(name, 0, 0, 1_000_000, (), meaning),
        Setting(f"{name}_period_ms", 1_000, 1, 86_400_000, (), "That period."),
        Setting(
            f"{name}_burst", 1, 1, 1_000_000, (), "How many may go at once after a quiet time."
        ),
    )


SETTINGS: Mapping[str, Setting] = {
    row.name: row
    for row in (
        Setting("durability", "sync", 0, 0, DURABILITIES, "What a confirm means for new messages."),
        Setting(
            "lease_ms", 30_000, limits.MIN_LEASE_MS, limits.MAX_LEASE_MS, (), "Length of a lease."
        ),
        Setting("max_attempts", 5, 1, 1_000, (), "Attempts, of all causes, before the DLQ."),
        Setting(
            "retry_delay_ms", 1_000, 0, limits.MAX_DELAY_MS, (), "Delay after the first failure."
        ),
        Setting(
            "retry_factor_percent", 200, 100, 1_000, (), "Growth of the delay with each failure."
        ),
        Setting("retry_cap_ms", 300_000, 0, limits.MAX_DELAY_MS, (), "Longest retry delay."),
        Setting(
            "retry_jitter_percent", 20, 0, 100, (), "The delay varies by up to this, both ways."
        ),
        Setting(
            "max_wait_ms",
            0,
            0,
            limits.MAX_DELAY_MS,
            (),
            "Longest time that ready messages wait behind those of higher priorities; 0: for ever.",
        ),
        Setting(
            "max_messages",
            0,
            0,
            2**53,
            (),
            "Most messages, those in work, too; 0: no limit.",
            may_limit=True,
        ),
        Setting(
            "key_concurrency",
            0,
            0,
            10_000,
            (),
            "Most messages of a key in work; 0: no limit; 1: in strict order, over retries, too.",
        ),
        Setting(
            "dedupe_window_ms",
            3_600_000,
            0,
            limits.MAX_DELAY_MS,
            (),
            "How long a dedupe id is remembered, where the publish does not say.",
        ),
        Setting(
            "key_on_dead",
            "skip",
            0,
            0,
            ("skip", "block"),
            "When a message dies: the next of its key goes on, or the key is paused until it is redriven.",
        ),
        *_rate("key_rate", "Most messages of a key handed out in each period; 0: no limit."),
        *_rate("rate", "Most messages of the queue handed out in each period; 0: no limit."),
        Setting(
            "max_bytes",
            0,
            0,
            2**53,
            (),
            "Most bytes that its messages keep in use, those in work, too; 0: no limit.",
            may_limit=True,
        ),
        Setting(
            "overflow",
            OVERFLOWS[0],
            0,
            0,
            OVERFLOWS,
            "What a publish does that would exceed max_messages or max_bytes (section 5.11).",
        ),
        Setting(
            "result_ms",
            0,
            0,
            limits.MAX_RESULT_MS,
            (),
            "What messages come to is kept for so long (`result`); 0: only where a worker says so.",
        ),
        Setting(
            "results_in",
            "log",
            0,
            0,
            ("log", "memory"),
            "Where they are kept: in the log, over a restart, too; or in memory alone, which writes nothing.",
        ),
        Setting(
            "circuit_failures_percent",
            0,
            0,
            100,
            (),
            "Share of failed attempts with which the circuit opens: nothing is handed out; 0: never.",
        ),
        Setting(
            "circuit_by",
            "queue",
            0,
            0,
            ("queue", "key"),
            "Whose circuit that is: the queue's, or one of each key.",
        ),
        Setting(
            "circuit_attempts", 10, 1, 1_000_000, (), "But only if so many ended in the window."
        ),
        Setting("circuit_window_ms", 60_000, 1_000, 86_400_000, (), "That window."),
        Setting(
            "circuit_open_ms",
            30_000,
            10,
            86_400_000,
            (),
            "How long it stays open before one message is tried.",
        ),
        Setting(
            "times_by",
            "queue",
            0,
            0,
            TIMES_BY,
            "Whose times are known: the queue's, or also those of groups of keys, named by the key or its start.",
        ),
        Setting(
            "message_ttl_ms",
            0,
            0,
            limits.MAX_DELAY_MS,
            (),
            "Time to live of messages published from now on without one of their own; 0: none.",
            may_limit=True,
        ),
        Setting(
            "on_expired",
            "drop",
            0,
            0,
            ("drop", "dead-letter"),
            "What becomes of a message whose time to live is over.",
        ),
        Setting(
            "delete_unused_ms",
            0,
            0,
            limits.MAX_DELAY_MS,
            (),
            "The queue ends, with what is in it, when nobody has used it for so long; 0: never.",
            may_limit=True,
        ),
        Setting(
            "active_consumers",
            "all",
            0,
            0,
            ("all", "one"),
            "Whether all consumers get messages, or one at a time, and the next one when it is gone.",
        ),
        Setting(
            "kind",
            WORK,
            0,
            0,
            KINDS,
            "A work queue, or a retained log, which groups and readers read (section 5.20); chosen once.",
        ),
        Setting(
            "retention_ms",
            0,
            0,
            limits.MAX_DELAY_MS,
            (),
            "How long a retained log keeps messages, at the least; 0: for ever.",
        ),
        Setting(
            "retention_bytes",
            0,
            0,
            2**53,
            (),
            "Most bytes that a retained log keeps on the disk, beside its newest segment; 0: no limit.",
        ),
        Setting(
            "retention_messages",
            0,
            0,
            2**53,
            (),
            "Most messages that a retained log keeps, beside its newest segment; 0: no limit.",
        ),
        Setting(
            "compaction_ms",
            0,
            0,
            limits.MAX_DELAY_MS,
            (),
            "A retained log keeps the last message of each key, and others of it for so long, about "
            "(few of them for an hour); 0: all, else 1,000 at the least.",
        ),
        Setting(
            "tombstone_ms",
            86_400_000,
            0,
            limits.MAX_DELAY_MS,
            (),
            "With compaction, how long an empty body, which ends its key, is kept itself.",
        ),
    )
}

Settings = dict[str, int | str]  # every name of SETTINGS with its value


LIMITABLE: Final = tuple(name for name, row in SETTINGS.items() if row.may_limit)


def not_default(settings: Settings) -> Settings:
    """Return those of these settings whose values are not the defaults: what somebody has chosen."""
    return {name: value for name, value in settings.items() if value != SETTINGS[name].default}


def default_settings() -> Settings:
    """Return a fresh map of all settings at their defaults."""
    return {name: row.default for name, row in SETTINGS.items()}


def check_settings(values: Mapping[str, object]) -> Settings:
    """Return `values` if every name and value is allowed.

    Raises:
        ValueError: names the setting, the value and what is allowed; nothing was changed.
    """
    return {name: _checked(name, value) for name, value in values.items()}


def _checked(name: str, value: object) -> int | str:
    row = SETTINGS.get(name)
    if row is None:
        raise ValueError(f"unknown setting {name!r:.100}; known are {', '.join(SETTINGS)}")
    if row.choices:
        if isinstance(value, str) and value in row.choices:
            return value
        raise ValueError(f"{name} is {value!r:.100}; it must be one of {', '.join(row.choices)}")
    if isinstance(value, int) and not isinstance(value, bool) and row.low <= value <= row.high:
        if name == "compaction_ms" and 0 < value < limits.LEAST_COMPACTION_MS:
            raise ValueError(
                f"{name} is {value}; it must be 0, or {limits.LEAST_COMPACTION_MS} at the least"
            )
        return value
    raise ValueError(
        f"{name} is {value!r:.100}; it must be an integer from {row.low} to {row.high}"
    )
