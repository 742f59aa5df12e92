"""`python -m benchmarks.spans.served FILE serve ...`: a broker with stamps; at its end they are in FILE."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.spans.stamps import put_all
from benchmarks.spans.table import SERVER_STAMPS

from minibrokerd.cli.main import main

if __name__ == "__main__":
    path = Path(sys.argv.pop(1))
    stamps = put_all(SERVER_STAMPS)
    try:
        main(prog_name="minibroker")
    finally:
        stamps.write(path)
