"""protocol.md, and the tables of other documents, are held to the tables that the code runs on."""

from __future__ import annotations

import importlib.util
import re
import struct
from pathlib import Path
from types import ModuleType

import pytest

from minibroker.contract import wire
from minibroker.contract.commands import COLUMNS, COMMANDS
from minibroker.contract.errors import ERRORS
from minibroker.contract.metrics import METRICS
from minibroker.contract.server_frames import SERVER_FRAMES
from minibroker.contract.settings import SETTINGS
from support.source import ROOT, name_of

DOCUMENT = (ROOT / "protocol.md").read_text("utf-8")
EXAMPLES = (
    {"parts": [{"op": "hello", "protocol": 1, "client": "w"}]},
    {
        "parts": [{"op": "publish", "queue": "q", "count": 1}],
        "sequence": 1,
        "answered_below": 1,
    },
    {
        "op": "confirm",
        "sequence": 1,
        "results": [{"origin": 1, "first": 0, "durability": "sync"}],
    },
    {
        "op": "deliver",
        "queue": "q",
        "token": 2**40 + 2,
        "lease_ms": 30_000,
        "count": 1,
        "runs": 1,
        "consumer": 1,
    },
    {
        "parts": [{"op": "ack", "queue": "q", "runs": 1}],
        "sequence": 2,
        "answered_below": 2,
    },
    {"op": "confirm", "sequence": 2, "results": [{"lost": 0}]},
    {
        "parts": [
            {"op": "ack", "queue": "q", "runs": 1},
            {"op": "publish", "queue": "r", "count": 1},
        ],
        "sequence": 2,
        "answered_below": 2,
    },
    {
        "parts": [{"op": "nack", "queue": "q", "runs": 1}],
        "sequence": 2,
        "answered_below": 2,
    },
)


def load_tables() -> ModuleType:
    """Return docs/tables.py, which is a script and belongs to no package."""
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = load_tables()


def section(head: str) -> str:
    """Return the text from a heading that starts with `head` to the next heading."""
    found = re.search(
        rf"^#+ {re.escape(head)}[^\n]*\n(.*?)(?=^#|\Z)", DOCUMENT, re.DOTALL | re.MULTILINE
    )
    assert found, f"protocol.md has no section {head!r}"
    return found[1]


@pytest.mark.parametrize("path", tables.DOCUMENTS, ids=name_of)
def test_the_tables_are_printed_from_the_code(path: Path) -> None:
    """After a change of a table: `make tables`."""
    assert tables.render(path) == path.read_text("utf-8")


@pytest.mark.parametrize("path", tables.DOCUMENTS, ids=name_of)
def test_every_table_stands_in_its_document_once(path: Path) -> None:
    """A new command needs its section, with a marker for its table."""
    marked = re.findall(r"<!-- table: ([^>]+) -->", path.read_text("utf-8"))
    assert sorted(marked) == sorted(tables.DOCUMENTS[path]())


@pytest.mark.parametrize("op", COMMANDS)
def test_every_command_has_a_section_with_its_fields_and_answers(op: str) -> None:
    """Heading, each field, each column, and a table of all answers."""
    text = section(f"`{op}`")
    row = COMMANDS[op]
    missing = [
        name
        for name in (*(field.name for field in row.fields), *row.columns)
        if f"`{name}`" not in text
    ]
    assert not missing
    assert "| answer | cause |" in text


@pytest.mark.parametrize("op", SERVER_FRAMES)
def test_every_server_frame_has_a_section_with_its_fields(op: str) -> None:
    """Heading, each field, each column."""
    text = section(f"Frame `{op}`")
    row = SERVER_FRAMES[op]
    assert not [name for name in (*row.fields, *row.columns) if f"`{name}`" not in text]


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("7. Queue settings", list(SETTINGS)),
        ("8. Errors", list(ERRORS)),
        ("2. Names and limits", [name for name, _, _ in tables.limit_rows()]),
        ("3. Frames", list(COLUMNS)),
        ("`stats`", list(METRICS)),
    ],
)
def test_every_name_stands_in_its_section(head: str, names: list[str]) -> None:
    """Settings, error codes, limits and columns."""
    text = section(head)
    assert not [name for name in names if f"`{name}`" not in text]


def test_the_answers_name_only_codes_that_exist() -> None:
    """And each code that the server sends is the answer to something."""
    assert set(re.findall(r"error `(\w+)`", DOCUMENT)) <= set(ERRORS)
    on_wire = {code for code, row in ERRORS.items() if row.on_wire}
    assert not [code for code in on_wire if DOCUMENT.count(f"`{code}`") < 2]


def test_the_worked_example_is_what_the_code_writes() -> None:
    """Hex bytes of section 9, frame by frame."""
    printed = [
        bytes.fromhex(" ".join(re.findall(r"\b[0-9a-f]{2}\b(?= |$)", _hex_part(block))))
        for block in re.findall(r"(?:^    .*\n)+", section("9. A worked example"), re.MULTILINE)
    ]
    lengths, blob = bytes([0, 0, 0, 0, 2, 0, 0, 0]), b"hi"
    hello, publish, confirm, deliver, ack, acked, step, nack = EXAMPLES
    delivered = struct.pack("<IQIIBBQ", 1, 0, 1, 1, 0, 0, 1_700_000_000_000)
    run = wire.pack_runs([(2**40 + 2, 1, 0, 1)])
    error = wire.pack_strings([b"ValueError"]) + wire.pack_strings([b"no"])
    assert printed == [
        wire.pack_frame(hello),
        wire.pack_frame(publish, lengths=lengths, blob=blob),
        wire.pack_frame(confirm),
        wire.pack_frame(deliver, delivered, lengths, blob),
        wire.pack_frame(ack, run),
        wire.pack_frame(acked),
        wire.pack_frame(step, run, lengths, b"ok"),
        wire.pack_frame(nack, run + error),
    ]


def _hex_part(block: str) -> str:
    # The explanation starts behind the widest hex column, or after two spaces and no hex digit.
    lines = (
        re.match(r"\s*((?:[0-9a-f]{2} {1,2})*(?:[0-9a-f]{2})?)(?=\s|$)", line)
        for line in block.splitlines()
    )
    return " ".join(found[1] for found in lines if found)


@pytest.mark.parametrize(
    "path", [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))], ids=name_of
)
def test_what_a_page_says_make_can_do_is_in_the_makefile(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    said = set(re.findall(r"`make ([a-z-]+)", path.read_text("utf-8")))
    assert said <= targets


def test_the_readme_has_no_link_that_an_index_page_cannot_follow() -> None:
    """It is the description of the package, too, where a path of the repository leads nowhere."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert not re.findall(r"\]\((?!https?://)[^)]*\)", text)
