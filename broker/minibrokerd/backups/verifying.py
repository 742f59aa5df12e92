"""Whether back-ups are as they were written: every byte by the manifests, every log as a start would read it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from minibrokerd.backups.failures import BackupDamaged
from minibrokerd.backups.manifest import Manifest
from minibrokerd.backups.presenting import Presented
from minibrokerd.backups.shelf import Shelf
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.failures import LogError
from minibrokerd.rescue.checking import check
from minibrokerd.retained.checking import look_at


@dataclass(slots=True)
class Verified:
    """The verdict on one back-up; `wrong` says what of it is not as it was written."""

    manifest: Manifest
    batches: int = 0
    records: int = 0
    wrong: list[str] = field(default_factory=list)


def verify(shelf: Shelf, manifest: Manifest) -> Verified:
    """Read all of a back-up and judge it."""
    verified = Verified(manifest)
    for file, sha256 in manifest.files.items():
        try:
            read_whole(shelf, file, sha256)
        except BackupDamaged as error:
            verified.wrong.append(str(error))
    if not verified.wrong:
        verified.wrong += damaged_retained(shelf, manifest)
    if verified.wrong:
        return verified
    ops = Presented(shelf, manifest)
    try:
        checked = check(DataDirectory(shelf.path, ops), ops)
    except LogError as error:
        verified.wrong.append(str(error))
        return verified
    verified.batches, verified.records = checked.survey.batches, checked.survey.records
    if checked.refusal is not None:
        verified.wrong.append(str(checked.refusal))
    elif checked.survey.number != manifest.batch:
        text = f"its log ends with batch {checked.survey.number}, not with {manifest.batch}"
        verified.wrong.append(text)
    return verified


def damaged_retained(shelf: Shelf, manifest: Manifest) -> list[str]:
    """Say what of the retained logs of a back-up was damaged when it was copied."""
    wrong = []
    for row in manifest.retained:
        looked = look_at(memoryview(shelf.read(row.file)), is_newest=False)
        for start, end in looked.damages:
            text = f"bytes {start} to {end} were not as they had been written when it was copied"
            wrong.append(f"{shelf.at(row.file)}: {text}")
    return wrong


def read_whole(shelf: Shelf, file: str, sha256: str) -> bytes:
    """Return the content of a file of a back-up.

    Raises:
        BackupDamaged: it is not there, cannot be read, or is not as it was written.
    """
    try:
        data = shelf.read(file)
    except OSError as error:
        raise BackupDamaged(shelf.at(file), f"cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BackupDamaged(shelf.at(file), "is not as it was written")
    return data
