"""`make profile ROW=lone`: where the time of a message goes, from the client's call to the disk and back.

Rows: lone (one publish at a time), handler (publish to an idle consumer), consume-1 and consume-32; each through
the asyncio client and the blocking one. `--write` puts table and picture of all rows into docs/performance.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.spans import chart, page
from benchmarks.spans.measuring import ROOT, Profile, as_json, measure
from benchmarks.spans.table import KINDS, NAMES, ROWS

RESULTS = ROOT / "benchmarks" / "results"
OUT = ROOT / "benchmarks" / "out"  # on the disk of the checkout: a log in memory has no sync


def main() -> None:
    """Measure, print, and write what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spans", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(NAMES))
    parser.add_argument("--kind", choices=KINDS, help="one of the clients alone")
    parser.add_argument("--messages", type=int, help="in each row, instead of its own number")
    parser.add_argument("--write", action="store_true", help="renew docs/performance.md")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(NAMES):
        parser.error(f"no row is called {', '.join(sorted(unknown))}")
    if options.write and (options.rows or options.kind):
        parser.error("--write is for all rows")
    profiles: list[Profile] = []
    OUT.mkdir(exist_ok=True)
    for row in ROWS:
        if (options.rows and row.name not in options.rows) or options.kind not in (None, row.kind):
            continue
        with tempfile.TemporaryDirectory(dir=OUT) as folder:
            profiles.append(measure(row, options.messages or row.messages, Path(folder)))
        print("\n".join(page.lines(profiles[-1])), flush=True)
    if options.write:
        (RESULTS / "spans.json").write_text(as_json(profiles), "utf-8")
        page.write(profiles, ROOT / "docs" / "performance.md")
        chart.draw(profiles, RESULTS / "spans.svg")


if __name__ == "__main__":
    main()
