"""The pages for users do what they say, in an empty folder; the guide has a file of tests for each half of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import run_page

PAGES = ("docs/operating.md", "docs/testing.md", "docs/tutorial.md", "README.md")


@pytest.mark.parametrize("name", PAGES)
def test_the_page_does_what_it_says(name: str, tmp_path: Path) -> None:
    """Its files are written, its commands run, what they print compared."""
    run_page(name, tmp_path)
