"""The pages for users do what they say, in an empty folder."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pages import Page

from support.source import ROOT

PAGES = ("docs/tutorial.md", "docs/operating.md", "docs/testing.md", "README.md")
GUIDES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/guide/*.md"))


@pytest.mark.parametrize("name", [*PAGES, *GUIDES])
def test_the_page_does_what_it_says(name: str, tmp_path: Path) -> None:
    """Its files are written, its commands run, what they print compared."""
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    page = Page(ROOT / name, tmp_path, *ports)
    try:
        page.run()
    finally:
        page.close()
