"""What the pages of other libraries show is what lies in examples/."""

from __future__ import annotations

import pytest

from support.source import ROOT


@pytest.mark.parametrize(
    ("library", "file"),
    [
        ("django-tasks", "django/shop/tasks.py"),
        ("django-tasks", "django/sending.py"),
        ("dramatiq", "dramatiq/shop.py"),
        ("taskiq", "taskiq/shop.py"),
    ],
)
def test_the_example_stands_on_its_page(library: str, file: str) -> None:
    """The page runs it: tests/docs/test_pages.py."""
    example = (ROOT / "examples" / file).read_text("utf-8")
    page = (ROOT / "docs" / "guide" / f"{library}.md").read_text("utf-8")
    assert f"```python\n{example}```\n" in page
