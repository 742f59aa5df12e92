"""The settings of the stream, in one table: what it is made with, and what is looked at where it is there.

What the table says of a setting is why: docs/guide/cluster.md prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from minibrokerd.replicated.history import STRETCH_BYTES
from minibrokerd.replicated.stream_address import StreamAddress
from minibrokerd.replicated.stream_space import LEAST_STRETCHES

LIMIT_NONE: Final = -1


class StreamSetting(NamedTuple):
    """One setting of the stream: its name in NATS, its value, and why another one would not do."""

    name: str
    value: object
    why: str


# An answer of JetStream leaves out what is false; `DEFAULTS` says what else a missing one means.
SETTINGS: Final = (
    StreamSetting("storage", "file", "what is in memory is gone when all servers start again"),
    StreamSetting("retention", "limits", "others delete what was read"),
    StreamSetting("discard", "new", "a full stream must refuse, and not eat its head"),
    StreamSetting("max_msgs", LIMIT_NONE, "only bytes are counted"),
    StreamSetting("max_age", 0, "time would eat the head"),
    StreamSetting("max_msgs_per_subject", LIMIT_NONE, "each entry is needed"),
    StreamSetting("allow_direct", True, "the log is read from any replica"),
    StreamSetting("allow_atomic", True, "a large batch is several messages"),
    StreamSetting("deny_delete", True, "nobody may take out one entry"),
    StreamSetting("deny_purge", False, "trimming is a purge"),
    StreamSetting("allow_rollup_hdrs", False, "a message could take away all before it"),
    StreamSetting("sealed", False, "it is written"),
)
DEFAULTS: Final = {"max_msgs": LIMIT_NONE, "max_msgs_per_subject": LIMIT_NONE, "max_age": 0}
LEAST_BYTES: Final = LEAST_STRETCHES * STRETCH_BYTES
# The least use of memory: ids are not sent, the expectation does it.
DUPLICATES_NS: Final = 1_000_000_000


def config_of(address: StreamAddress) -> dict[str, Any]:
    """Return the configuration that the stream is made with."""
    return {setting.name: setting.value for setting in SETTINGS if setting.name != "sealed"} | {
        "name": address.stream,
        "subjects": [address.record_subject, address.epoch_subject],
        "num_replicas": address.replicas,
        "duplicate_window": DUPLICATES_NS,
    }


def unfit(config: Mapping[str, Any], address: StreamAddress) -> list[str]:
    """Return what is wrong with the settings of a stream that is there, in words; empty: nothing."""
    faults = []
    for setting in SETTINGS:
        missing = DEFAULTS.get(setting.name, False)
        found = config.get(setting.name, missing)
        if found != setting.value:
            faults.append(
                f"{setting.name} is {_text(found)}, {_text(setting.value)} is needed ({setting.why})"
            )
    if config.get("num_replicas", 1) < address.replicas:
        faults.append(f"num_replicas is {config.get('num_replicas', 1)}, {address.replicas} asked")
    most_bytes = config.get("max_bytes", LIMIT_NONE)
    if 0 < most_bytes < LEAST_BYTES:
        faults.append(f"max_bytes is {most_bytes}, none or {LEAST_BYTES} at least is needed")
    subjects = {address.record_subject, address.epoch_subject}
    if set(config.get("subjects") or ()) != subjects:
        faults.append(f"its subjects are not {' and '.join(sorted(subjects))}")
    if config.get("mirror") or config.get("sources"):
        faults.append("it is filled from another stream")
    return faults


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
