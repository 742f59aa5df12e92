"""Versions of the log as rows: what each added, and from which type of record on a log has it.

A segment says in its first batch which version reads it. One that a log goes on with keeps its version: only a
segment that begins after the first record of a newer type says the newer one. So a release can be taken back as
long as what it added was not used.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from minibroker.contract.versions import Version


class LogVersion(NamedTuple):
    """A version of the log, and the lowest type of record that only it has."""

    version: Version
    first_type: int


LOG_VERSIONS: Final = (
    LogVersion(Version(1, "0.1.0", "Records of the types 1 to 13."), 1),
    LogVersion(Version(2, "the next one", "Records of the types 14 to 19."), 14),
)
FORMAT_VERSION: Final = LOG_VERSIONS[-1].version.number  # the newest that this release reads


def version_of(newest_type: int) -> int:
    """Return the version of a log whose records have types up to this one."""
    return max(row.version.number for row in LOG_VERSIONS if row.first_type <= newest_type)
