"""Durations and sizes with units, as they are typed and as they are printed."""

from __future__ import annotations

import click
import pytest

from minibrokerd.cli.ranges import Duration, Size
from minibrokerd.text.units import duration_text, parse_bytes, parse_ms, size_text


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("250ms", 250),
        ("2d", 172_800_000),
        ("1w", 604_800_000),
        ("1.5s", 1_500),
        ("90", 90_000),
        ("0.25", 250),
        (" 1H 30 Min ", 5_400_000),
        ("1m30", None),
        ("30m1h", None),
        ("1m1min", None),
        ("-1s", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("1_0", None),
        ("\u0661s", None),
        ("5 parsecs", None),
        ("", None),
    ],
)
def test_a_duration_is_what_it_says(text: str, ms: int | None) -> None:
    """A plain number is one of seconds; each unit stands once, the larger first."""
    if ms is None:
        with pytest.raises(ValueError, match="is no duration"):
            parse_ms(text)
    else:
        assert parse_ms(text) == ms


def test_a_plain_number_may_have_another_unit() -> None:
    """That of a setting whose name ends in it."""
    assert parse_ms("250", "ms") == 250
    assert parse_ms("250s", "ms") == 250_000


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4_096),
        ("512M", 536_870_912),
        ("64MiB", 67_108_864),
        ("64mib", 67_108_864),
        ("1.5K", 1_536),
        ("2GB", 2_000_000_000),
        ("3 kB", 3_000),
        ("10B", 10),
        ("0.1K", None),
        ("64M iB", None),
        ("-1", None),
        ("1e3", None),
        ("lots", None),
        ("", None),
    ],
)
def test_a_size_is_what_it_says(text: str, size: int | None) -> None:
    """K, M, G, T and KiB, MiB ... are powers of 1,024; kB, MB ... of 1,000."""
    if size is None:
        with pytest.raises(ValueError, match="is no "):
            parse_bytes(text)
    else:
        assert parse_bytes(text) == size


@pytest.mark.parametrize("ms", [0, 1, 999, 1_000, 61_001, 5_400_000, 86_400_000, 2**53, 0.5])
def test_a_duration_is_printed_as_it_can_be_typed(ms: float) -> None:
    """The text means exactly the number."""
    assert parse_ms(duration_text(ms)) == ms


def test_values_are_printed_in_their_units() -> None:
    """The largest that fit."""
    assert [duration_text(ms) for ms in (300_000, 5_400_000, 250)] == ["5m", "1h30m", "250ms"]
    assert [size_text(size) for size in (2**26, 2**20 + 1, 0)] == ["64MiB", "1048577B", "0B"]
    assert all(parse_bytes(size_text(size)) == size for size in (0, 1, 4_096, 2**26, 2**40, 999))


@pytest.mark.parametrize("text", ["0.5s", "11m", "9" * 400])
def test_a_duration_out_of_range_names_the_range(text: str) -> None:
    """In units, too."""
    with pytest.raises(click.BadParameter, match="at least 1s and at most 10m"):
        Duration(1_000, 600_000).convert(text, None, None)


def test_a_size_out_of_range_names_the_range() -> None:
    """And the step, where there is one."""
    with pytest.raises(click.BadParameter, match="at least 64KiB and at most 1GiB"):
        Size(64 * 1024, 2**30).convert("1K", None, None)
    with pytest.raises(click.BadParameter, match="not a multiple of 4KiB"):
        Size(step=4_096).convert("5000", None, None)
