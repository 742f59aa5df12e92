"""The files of others that the page brings are those that were published, and all of them are named."""

from __future__ import annotations

import hashlib
import re

from support.source import ROOT

VENDOR = ROOT / "broker" / "minibrokerd" / "http" / "static" / "vendor"
ROW = re.compile(r"^\| (\S+) \| .* \(([\w.]+)\) \| ([0-9a-f]{64}) \|$", re.MULTILINE)


def test_vendored_files_have_their_checksums() -> None:
    """Each row of VERSIONS.md, and there is no file without one; each licence lies beside."""
    rows = ROW.findall((VENDOR / "VERSIONS.md").read_text("utf-8"))
    found = {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name, _, _ in rows}
    assert found == {name: checksum for name, _, checksum in rows}
    licences = {licence for _, licence, _ in rows}
    assert {path.name for path in VENDOR.iterdir()} == {*found, *licences, "VERSIONS.md"}
