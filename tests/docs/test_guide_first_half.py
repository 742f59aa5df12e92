"""The first half of the pages of the guide, by their names, does what it says; see test_pages.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import GUIDES, run_page


@pytest.mark.parametrize("name", GUIDES[: len(GUIDES) // 2])
def test_the_page_does_what_it_says(name: str, tmp_path: Path) -> None:
    """Its files are written, its commands run, what they print compared."""
    run_page(name, tmp_path)
