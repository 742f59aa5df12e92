"""Bugs of the log: order on the disk, what a checksum covers, what a start does to what it finds."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

SYNC_MUTANTS: Final = (
    Mutant(
        "confirm before sync",
        "log/fileops.py",
        "    taken = ops.write_synced(descriptor, data, offset)\n",
        "    taken = ops.write(descriptor, data, offset)\n",
        ("cuts:first_start", "cuts:mixed", "sim"),
        "I1, C2: a power cut takes what was confirmed",
    ),
    Mutant(
        "retry a failed sync",
        "log/fileops.py",
        "    taken = ops.write_synced(descriptor, data, offset)\n",
        "    try:\n        taken = ops.write_synced(descriptor, data, offset)\n"
        "    except OSError:\n        ops.sync(descriptor)\n        taken = len(data)\n",
        ("sim", "log/test_log_writing.py"),
        "I1, E1: the second sync says that all is well, and the pages are gone",
    ),
    Mutant(
        "ignore short write",
        "log/fileops.py",
        "    while taken != len(data):\n",
        "    while taken <= 0:\n",
        ("sim",),
        "I1, E10: the rest of the batch was never written",
    ),
    Mutant(
        "a synced write without its flag",
        "log/fileops.py",
        "            return os.pwritev(descriptor, [data], offset, os.RWF_DSYNC)\n",
        "            return os.pwritev(descriptor, [data], offset, 0)\n",
        ("log/test_log_fileops.py",),
        "I1, C2: what the disk in memory cannot see, on a real one",
    ),
    Mutant(
        "skip directory sync",
        "log/tail.py",
        '        self._ops.rename(self._directory.at("next.tmp"), self._directory.at(name))\n'
        "        self._directory.sync()\n",
        '        self._ops.rename(self._directory.at("next.tmp"), self._directory.at(name))\n',
        ("cuts:first_start", "cuts:mixed", "sim"),
        "I1, C8: the name of a new segment is gone, and with it what was confirmed",
    ),
    Mutant(
        "rename before content sync",
        "log/rewrite.py",
        "        ops.sync(descriptor)\n"
        '        ops.rename(directory.at("next.tmp"), directory.at(name))\n',
        '        ops.rename(directory.at("next.tmp"), directory.at(name))\n'
        "        ops.sync(descriptor)\n",
        ("cuts:killed", "sim"),
        "I1, C9: the new name stands for bytes that are not there",
    ),
    Mutant(
        "unlink before the new log start is synced",
        "log/tail.py",
        "        self.append_own(Kind.MARKER, now_ms, unix_ms)\n"
        "        for sealed in freed:\n"
        "            self._allocation.recycle(str(sealed.name))\n"
        "            self.forget_index(sealed.name)\n"
        "            self.sealed.popleft()\n"
        "            self.sealed_bytes -= sealed.size_bytes\n",
        "        for sealed in freed:\n"
        "            self._allocation.recycle(str(sealed.name))\n"
        "            self.forget_index(sealed.name)\n"
        "            self.sealed.popleft()\n"
        "            self.sealed_bytes -= sealed.size_bytes\n"
        "        self.append_own(Kind.MARKER, now_ms, unix_ms)\n",
        ("log/test_log_freeing.py", "cuts:freeing", "sim"),
        "C10: a start finds a log whose first segment is gone",
    ),
    Mutant(
        "closed before the footer is synced",
        "log/filelog.py",
        "        self._put(Job(lambda: self._tail.append_own(Kind.FOOTER, now_ms, unix_ms), None))\n"
        "        self._put(Job(self._close_state, None))\n",
        "        self._put(Job(self._close_state, None))\n"
        "        self._put(Job(lambda: self._tail.append_own(Kind.FOOTER, now_ms, unix_ms), None))\n",
        ("cuts:closed", "sim"),
        "I12: a crash between the two is taken for damage",
    ),
    Mutant(
        "reserve that is not zeroed",
        "log/allocation.py",
        "            write_all(self._ops, descriptor, bytes(self._ops.data_end(descriptor)), 0)\n",
        "            write_all(self._ops, descriptor, bytes(self._ops.data_end(descriptor) // 99), 0)\n",
        ("log/test_log_recovery.py::test_torn_bytes_are_kept_aside",),
        "C7, I12: what an older segment had stands behind the end of a new one",
    ),
)

FORMAT_MUTANTS: Final = (
    Mutant(
        "CRC not over length",
        "log/format.py",
        "    if (at, len(records), heads_checksum) != (end, header.record_count, header.heads_checksum):\n",
        "    if (at, len(records)) != (end, header.record_count):\n",
        ("log/test_log_format.py", "flips:closed"),
        "M1: heads of records, with their lengths, may be those of another batch",
    ),
    Mutant(
        "batch not atomic",
        "log/format.py",
        "        if at > end or meta_bytes > payload_bytes or no_bytes != _NO_BYTES:\n"
        "            return None\n"
        "        meta, tail = data[meta_from : meta_from + meta_bytes], data[meta_from + meta_bytes : at]\n"
        "        tail_checksum = crc32(tail)\n"
        "        if not _holds(checksum, type_, meta, tail_checksum):\n"
        "            return None\n",
        "        if at > end or meta_bytes > payload_bytes or no_bytes != _NO_BYTES:\n"
        "            return records\n"
        "        meta, tail = data[meta_from : meta_from + meta_bytes], data[meta_from + meta_bytes : at]\n"
        "        tail_checksum = crc32(tail)\n"
        "        if not _holds(checksum, type_, meta, tail_checksum):\n"
        "            return records\n",
        ("cuts:mixed", "sim"),
        "C5: some records of a torn batch are applied",
    ),
    Mutant(
        "a damaged record is read back",
        "log/format.py",
        "    return found[0] if found is not None and found[1] else None\n",
        "    return found[0] if found is not None else None\n",
        ("log/test_log_indexes.py",),
        "I3, M1: a body that is not what was published is handed out",
    ),
    Mutant(
        "side index trusted without its checksum",
        "log/index.py",
        "        if crc32(payload, crc32(head)) != checksum or len(payload) != payload_bytes:\n",
        "        if checksum == crc32(head) or len(payload) != payload_bytes:\n",
        ("log/test_log_indexes.py",),
        "I1, M1: a start makes up what a damaged index says",
    ),
    Mutant(
        "index of other bytes",
        "log/recovery.py",
        "            if len(stretch) != region.stop - region.start or crc32(stretch) != region.checksum:\n",
        "            if len(stretch) != region.stop - region.start:\n",
        ("log/test_log_indexes.py",),
        "I1, M2: the newest segment is not what its index is about, and nobody looks",
    ),
)

START_MUTANTS: Final = (
    Mutant(
        "a footer is believed unsynced",
        "log/recovery.py",
        "        self.clean = self.report.clean = closed and footed\n",
        "        self.clean = self.report.clean = footed\n",
        ("sim/test_lost_syncs.py",),
        "I1, E1: pages whose sync failed unheard are served, and gone with the power",
    ),
    Mutant(
        "recovered tail not rewritten",
        "log/filelog.py",
        "            if recovery.clean:\n",
        "            if recovery.clean or not recovery.report.torn_bytes:\n",
        ("cuts:killed", "sim"),
        "C13: what was served after a kill is lost by the next power cut",
    ),
    Mutant(
        "reuse token after restart",
        "log/filelog.py",
        "        tail.store_id, tail.epoch = self.store_id, recovery.epoch + self._raised_epochs\n",
        "        tail.store_id, tail.epoch = self.store_id, max(recovery.epoch, 1)\n",
        ("sim",),
        "I5: two deliveries under one token",
    ),
    Mutant(
        "token reused after a lost lease record",
        "log/filelog.py",
        "        tail.append_own(Kind.SEGMENT, now_ms, unix_ms)\n        # What is zeroed",
        "        if last is None:\n"
        "            tail.append_own(Kind.SEGMENT, now_ms, unix_ms)\n"
        "        # What is zeroed",
        ("sim", "log/test_restarts.py"),
        "I5: the epoch of a run that synced nothing is that of the next one",
    ),
    Mutant(
        "lock taken after open",
        "log/directory.py",
        "            self._take_lock()\n            self._refuse_moved()\n"
        "            self.session_key = self._read_or_make_key()\n",
        "            self.session_key = self._read_or_make_key()\n            self._refuse_moved()\n"
        "            self._take_lock()\n",
        ("log/test_log_directory.py",),
        "E14: a second start writes into a directory that is not its own",
    ),
)

LOG_MUTANTS: Final = SYNC_MUTANTS + FORMAT_MUTANTS + START_MUTANTS
