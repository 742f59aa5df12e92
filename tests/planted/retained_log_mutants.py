"""Bugs of retained logs in the core: their archiver, their groups and their readers."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

RETAINED_LOG_MUTANTS: Final = (
    Mutant(
        "a log gives its keys in turn to its files",
        "core/verbs/archiving.py",
        "    if lanes.turns == 1 and not lanes.index:\n",
        "    if lanes.turns:\n",
        ("core/test_core_logs.py",),
        "5.20: offsets ascend; what comes to the files behind a later one is lost",
    ),
    Mutant(
        "a start does not archive what it finds",
        "core/verbs/archiving.py",
        "        store.touch(log.queue.group)  # a start may have found what was not archived yet\n",
        "",
        ("core/test_core_log_files.py",),
        "what was confirmed is not there for who reads until somebody publishes",
    ),
    Mutant(
        "the position of a group may stand in another batch than its messages",
        "core/verbs/feeding.py",
        "        with undivided(store, size + PUBLISH_OVERHEAD_BYTES):\n",
        "        with undivided(store, 0):\n",
        ("core/test_core_log_files.py",),
        "a crash between them hands messages out again",
    ),
    Mutant(
        "a group is fed only what the segments have room for at once",
        "engine/admission.py",
        "or a segment is larger.\n        size = min(size, self._log.sizes.apply_bytes)\n",
        "or a segment is larger.\n",
        ("server/test_admission.py", "server/test_small_segments.py"),
        "I9: a group that is behind by more than a small segment waits for ever",
    ),
    Mutant(
        "a group of small segments is fed all that was read",
        "core/verbs/feeding.py",
        "        elif taken and total + size > most_bytes:\n",
        "        elif taken and total > 1_000 * most_bytes:\n",
        ("core/test_core_log_files.py",),
        "more is written than there is room for, out of the reserve",
    ),
    Mutant(
        "a full group is not looked at again",
        "core/verbs/feeding.py",
        "        store.retained.full[feeder] = None\n",
        "",
        ("core/test_core_logs.py",),
        "a window of retries that are purged or too old holds a group for ever",
    ),
    Mutant(
        "what was fetched before a seek is fed behind it",
        "core/verbs/feeding.py",
        " or feeder.generation != asked.generation:\n",
        ":\n",
        ("core/test_core_log_bounds.py",),
        "a group gets messages from the place it was moved away from",
    ),
    Mutant(
        "a reader who is gone is answered",
        "core/verbs/withdrawing.py",
        "    store.retained.withdrawn(store, connection.id, request)\n",
        "",
        ("core/test_core_log_readers.py",),
        "an answer follows the reply of its withdrawal",
    ),
    Mutant(
        "a reader is known after its connection",
        "core/verbs/farewells.py",
        "    store.retained.disconnected(store, id)\n",
        "",
        ("core/test_core_log_readers.py",),
        "readers that left fill the bound of those that may wait",
    ),
    Mutant(
        "a purge of a log is forgotten by a crash",
        "core/model/retained.py",
        "            known.floor, known.stop = int(floor), int(stop)\n",
        "            known.stop = int(stop)\n",
        ("core/test_core_log_bounds.py",),
        "what was purged, and confirmed so, is there again",
    ),
    Mutant(
        "files that are shorter than they were are not told",
        "core/verbs/archiving.py",
        "    if start < log.stop:\n",
        "    if start < 0:\n",
        ("core/test_core_log_bounds.py",),
        "a lost directory looks like an empty log",
    ),
    Mutant(
        "a policy for all is for logs, too",
        "core/model/policies.py",
        "        return OF_WORK\n",
        "        return frozenset()\n",
        ("core/test_core_log_bounds.py",),
        "message_ttl_ms takes what is not archived yet, key_concurrency holds it",
    ),
    Mutant(
        "a log that is deleted takes some of its groups before it is refused",
        "core/verbs/moving.py",
        "    for each in [*both, *(one for group in groups for one in _with_dlq(store, group))]:\n",
        "    for each in both:\n",
        ("core/test_core_log_bounds.py",),
        "a delete that was refused has deleted something",
    ),
    Mutant(
        "files go before the record that says so is safe",
        "engine/archivist.py",
        "        while self.ends and self.ends[0].rests_on <= self._core.synced:\n",
        "        while self.ends:\n",
        ("core/test_core_log_files.py",),
        "a crash brings a log back whose files are gone",
    ),
)
