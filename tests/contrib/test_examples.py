"""What the pages of other libraries show is what lies in examples/."""

from __future__ import annotations

import pytest

from support.source import ROOT


@pytest.mark.parametrize("library", ["dramatiq", "taskiq"])
def test_the_example_stands_on_its_page(library: str) -> None:
    """The page runs it: tests/docs/test_pages.py."""
    example = (ROOT / "examples" / library / "shop.py").read_text("utf-8")
    page = (ROOT / "docs" / "guide" / f"{library}.md").read_text("utf-8")
    assert f"```python\n{example}```\n" in page
