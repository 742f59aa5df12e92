"""Bugs of back-ups: what is believed of a directory that changes, and what is written over."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

TAKING: Final = ("backups/test_taking.py",)
BRINGING: Final = ("backups/test_bringing_back.py",)

BACKUP_MUTANTS: Final = (
    Mutant(
        "the newest segment is believed as it was read",
        "backups/backing.py",
        "        doubt = self._look_again(newest, copy, state)\n"
        "        if doubt is not None:\n            return doubt\n",
        "",
        TAKING,
        "I1: zeroed in the middle of the reading, it looks like a shorter log",
    ),
    Mutant(
        "a segment of a back-up is believed without the next one",
        "backups/backing.py",
        "        if copy.head != head or not _ends_before(copy.last, copy.last_checksum, after):\n",
        "        if copy.head != head:\n",
        TAKING,
        "I1: half of a segment stands for it",
    ),
    Mutant(
        "damage is taken for a change",
        "backups/backing.py",
        "            if doubt == before:\n",
        "            if False:\n",
        TAKING,
        "damage is never told, and the advice is wrong",
    ),
    Mutant(
        "a back-up of another log makes room for this one",
        "backups/backing.py",
        "        if any(manifest.store != self.store_id.hex() for manifest in self._older):\n",
        "        if False:\n",
        TAKING,
        "the back-ups of the other one are removed one by one",
    ),
    Mutant(
        "a restore is moved before it is whole",
        "backups/bringing.py",
        "        ops.rename(str(target / BUILDING), str(moving))\n",
        "        moving.mkdir()\n        for path in (target / BUILDING).iterdir():\n"
        "            ops.rename(str(path), str(moving / path.name))\n        (target / BUILDING).rmdir()\n",
        BRINGING,
        "I1: cut short there, it goes on with half of the segments",
    ),
    Mutant(
        "the bytes of a back-up are not compared",
        "backups/verifying.py",
        "    if hashlib.sha256(data).hexdigest() != sha256:\n",
        "    if False:\n",
        BRINGING,
        "a flipped bit in a key or in a tail is restored",
    ),
)
