"""The four bins of a payload: taken apart, joined, cut and lengthened in every way."""

from __future__ import annotations

from collections.abc import Iterator


def bins(payload: bytes) -> list[bytes]:
    """Return the contents of the four bins, which are all short here."""
    found, at = [], 1
    for _ in range(4):
        assert payload[at] == 0xC4, "only vectors have short bins"
        end = at + 2 + payload[at + 1]
        found.append(payload[at + 2 : end])
        at = end
    assert at == len(payload)
    return found


def joined(contents: list[bytes], head: bytes = b"\xc6", size: int = 4) -> bytes:
    """Return a payload of four bins, in this form of a bin."""
    return b"\x94" + b"".join(head + len(each).to_bytes(size, "big") + each for each in contents)


def changed(payload: bytes, cut: bool) -> Iterator[tuple[str, bytes]]:
    """Yield payloads of four bins, one of which was cut short in every way, or has bytes behind it."""
    contents = bins(payload)
    for index, name in enumerate(("header", "columns", "lengths", "blob")):
        content = contents[index]
        others = [content[:end] for end in range(len(content))] if cut else [content + b"\x00"]
        for other in others:
            yield (
                f"{name} of {len(other)}",
                joined([*contents[:index], other, *contents[index + 1 :]]),
            )
