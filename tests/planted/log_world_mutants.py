"""Bugs of retained logs that a simulated world with logs is to show: what is lost, skipped, or there again."""

from __future__ import annotations

from typing import Final

from mutant import CLIENT, Mutant

LOGS: Final = ("logs",)
LOG_WORLD_MUTANTS: Final = (
    Mutant(
        "what went to the files of a log is acknowledged before it is synced",
        "engine/archivist.py",
        "                files.append([_frame(piece) for piece in work.pieces])\n                files.sync()\n",
        "                files.append([_frame(piece) for piece in work.pieces])\n",
        LOGS,
        "O2: a power cut takes what was confirmed",
    ),
    Mutant(
        "what was fed to a group is not in its position",
        "core/verbs/feeding.py",
        "            feeder.position = position\n            feeder.write(store)\n",
        "            feeder.position = position\n",
        LOGS,
        "I7: after a crash everything since comes again, also what was acked",
    ),
    Mutant(
        "a group that is fed again leaves a message out",
        "core/verbs/feeding.py",
        "    asked = Fetch(number, feeder.position, feeder.since_unix_ms, most_bytes)\n",
        "    at = feeder.position + bool(feeder.position)\n"
        "    asked = Fetch(number, at, feeder.since_unix_ms, most_bytes)\n",
        LOGS,
        "G1: it never comes to the group",
    ),
    Mutant(
        "a move leaves what waits in the group",
        "core/verbs/logs.py",
        "    purged = purge(store, queue, client)\n",
        "    purged = purge(store, queue, client) if part.key else 0\n",
        LOGS,
        "G3: messages of the old place are handed out behind the move",
    ),
    Mutant(
        "retention by number counts what goes as kept",
        "retained/files.py",
        "                or (retention_messages and messages >= retention_messages)\n",
        "                or (retention_messages and messages + sums.messages > retention_messages)\n",
        LOGS,
        "O5: fewer messages are there than are to be kept",
    ),
    Mutant(
        "a compaction knows no message without a key",
        "retained/compacting.py",
        "            stays.append(not key or not (superseded or tombstone))\n",
        "            stays.append(not (superseded or tombstone))\n",
        LOGS,
        "O2: of all messages without a key only the last one stays",
    ),
    Mutant(
        "a purge leaves the newest message",
        "engine/archivist.py",
        "                files.trim(forget.below)\n",
        "                files.trim(forget.below - 1)\n",
        LOGS,
        "O4: what was purged, and confirmed so, is read",
    ),
    Mutant(
        "the files of a log that was deleted stay",
        "engine/archivist.py",
        "                self._retained.delete(forget.log)\n                return None\n",
        "                return None\n",
        LOGS,
        "I11: they are there until the next start",
    ),
    Mutant(
        "the names of deleted logs are not synced",
        "retained/shelf.py",
        "            self._sync()  # nobody knows it any more once its end is in the log no more\n",
        "",
        ("retained/test_retained_files.py",),
        "a power cut brings them back, and a start keeps them aside",
    ),
    Mutant(
        "a reader gets the whole of the first frame",
        "session/log_pages.py",
        "            if offset >= start:  # frames come as they are stored\n",
        "            if offset >= 0:  # frames come as they are stored\n",
        LOGS,
        "O3: what stands in front of the offset comes, too",
        CLIENT,
    ),
    Mutant(
        "a reader from a time begins at the newest segment",
        "retained/files.py",
        "                for segment in segments:\n                    if segment.sums.messages and",
        "                for segment in segments[-1:]:\n                    if segment.sums.messages and",
        LOGS,
        "O3: what is younger than the time is skipped",
    ),
    Mutant(
        "what a record of a rate says ahead does not wait for it",
        "core/model/keys.py",
        "        elif store.synced < known.batch < NEVER:  # it says this ahead, and is not safe yet\n",
        "        elif NEVER < known.batch:  # it says this ahead, and is not safe yet\n",
        ("core/test_core_rates.py",),
        "a token is given twice: decision 48",
    ),
)
