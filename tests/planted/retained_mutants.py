"""Bugs of the files of retained logs."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

_CUTS: Final = ("retained/test_retained_cuts.py",)
_DAMAGE: Final = ("retained/test_retained_damage.py",)
_TIDYING: Final = ("retained/test_retained_tidying.py",)
_FILES: Final = ("retained/test_retained_files.py",)

RETAINED_MUTANTS: Final = (
    Mutant(
        "a torn frame with whole ones behind it is taken for damage",
        "retained/files.py",
        "            elif bad is not None and not found.flags & SYNCED_BEFORE:\n",
        "            elif False:\n",
        _CUTS,
        "decision 66: what was torn comes again, below the end of the archive, where it is ignored",
    ),
    Mutant(
        "each damaged frame cuts off the newest segment",
        "retained/files.py",
        "            elif bad is not None and not found.flags & SYNCED_BEFORE:\n",
        "            elif bad is not None:\n",
        (*_CUTS, *_DAMAGE),
        "decision 66: what was synced is lost with what is damaged before it",
    ),
    Mutant(
        "a full segment is left before it is synced",
        "retained/files.py",
        "        self.sync()\n        self._write_index()\n        sealed = self._row.all[-1]\n",
        "        self._write_index()\n        sealed = self._row.all[-1]\n",
        _CUTS,
        "what was safe is torn in a segment that is not the newest",
    ),
    Mutant(
        "a trim is over before its entries are on the disk",
        "retained/files.py",
        "                self._indexed_bytes = 0\n        self._row.sync()\n",
        "                self._indexed_bytes = 0\n",
        _CUTS,
        "what was purged is read again after a crash",
    ),
    Mutant(
        "a segment is deleted before what replaces it has its name on the disk",
        "retained/row.py",
        "            rewriting.install()\n            self._ops.sync_directory(self._descriptor)\n",
        "            rewriting.install()\n",
        _CUTS,
        "a crash leaves neither of the two",
    ),
    Mutant(
        "what replaces a segment is renamed before it is synced",
        "retained/rewriting.py",
        "        self._write()\n        self._ops.sync(self._descriptor)\n        self._close()\n",
        "        self._write()\n        self._close()\n",
        _CUTS,
        "a crash leaves a torn segment in place of a whole one",
    ),
    Mutant(
        "a segment that is written anew keeps what a trim cut off",
        "retained/tidying.py",
        "                yield _above(found, source.low)\n",
        "                yield found\n",
        ("retained/test_retained_files.py", *_TIDYING, *_CUTS),
        "messages that were purged are counted, and read",
    ),
    Mutant(
        "behind a head that does not verify the next bytes are believed",
        "retained/segment.py",
        "                    unknown.end = reader.position = self.points.after(at) or size\n",
        "                    unknown.end = reader.position = at + 1\n",
        _DAMAGE,
        "a body with the bytes of a frame in it is read as messages",
    ),
    Mutant(
        "the sum of a body is not compared",
        "retained/frames.py",
        "    if crc32(body) != head.checksum:\n        return None\n",
        "",
        _DAMAGE,
        "a bit that flipped is handed out",
    ),
    Mutant(
        "an index of another segment is believed",
        "retained/points.py",
        " != checksum or (low, generation) != name:\n",
        " != checksum:\n",
        _DAMAGE,
        "a reader looks in the wrong place",
    ),
    Mutant(
        "a tombstone goes while what it ended may be there",
        "retained/tidying.py",
        "            latest.tombstones_stay |= source.name in self._left_alone\n",
        "",
        _TIDYING,
        "a key that was ended is there again",
    ),
    Mutant(
        "a tombstone goes beyond what was remembered",
        "retained/compacting.py",
        "        ends = frame.unix_ms < self._ends_before_ms and frame.stop <= self.upto\n",
        "        ends = frame.unix_ms < self._ends_before_ms\n",
        _TIDYING,
        "what its key had before stays for ever",
    ),
    Mutant(
        "frames with different keys are joined under the first one",
        "retained/cutting.py",
        "    if any(parts.keys is not None or parts.key != key for parts in some):\n",
        "    if any(parts.keys is not None for parts in some):\n",
        _TIDYING,
        "order by key, and compaction, go by the key of another message",
    ),
    Mutant(
        "frames are joined across a gap",
        "retained/fewer.py",
        "                and frame.first == waiting[-1].stop\n",
        "",
        _FILES,
        "messages behind the gap have offsets of others",
    ),
    Mutant(
        "of what comes again in another frame nothing is cut off",
        "retained/files.py",
        "                frame = behind(frame, stop)\n",
        "                pass\n",
        _FILES,
        "a message is there twice",
    ),
    Mutant(
        "retention deletes what it was asked to keep",
        "retained/files.py",
        "                or (retention_messages and messages >= retention_messages)\n",
        "                or (retention_messages and messages + 8 >= retention_messages)\n",
        _FILES,
        "less is there than was asked for",
    ),
    Mutant(
        "two that read the same read the disk twice",
        "retained/shelf.py",
        "                    if chunk.frames:\n                        self._keep(number, start, chunk)\n",
        "",
        _FILES,
        "decision 66: it is read once from the archive, for all groups that are at the same place",
    ),
    Mutant(
        "a back-up copies retained logs before the log",
        "backups/backing.py",
        "    rounds = taking.run()\n    # Behind the log: what it has given to the archive is there.\n"
        "    retained, retained_bytes = take_retained(source, shelf, ops, pace, older)\n",
        "    retained, retained_bytes = take_retained(source, shelf, ops, pace, older)\n"
        "    rounds = taking.run()\n",
        ("backups/test_backup_retained.py",),
        "what was archived in between is in neither",
    ),
    Mutant(
        "a segment of another life is taken for the same",
        "backups/retaining.py",
        "row is None or row.ends != _ends_of(ops, at, size) or",
        "row is None or",
        ("backups/test_backup_retained.py",),
        "a restore has messages of another life",
    ),
)
