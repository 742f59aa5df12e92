"""The whole story in short: fewer signups, faster mails, the same kills."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.source import ROOT

DEMO = ROOT / "examples" / "signup" / "demo.py"
PATIENCE_S = 600  # for a dozen starts of Python, and twenty seconds of a story


@pytest.mark.timeout(PATIENCE_S + 20)
@pytest.mark.parametrize("signups", [5])
def test_the_story_ends_with_nothing_lost(tmp_path: Path, signups: int) -> None:
    """Killed worker, killed broker, dead letter, redrive: every answered signup is served."""
    arguments = ["--signups", str(signups), "--mail-seconds", "1", "--lease-ms", "1000"]
    done = subprocess.run(
        [sys.executable, str(DEMO), *arguments, "--out", str(tmp_path / "out")],
        cwd=tmp_path,  # it works from any folder
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(
        rf"demo: signups={signups} request_ms=\d+ queued_ms=\d+ mails={signups} avatars={signups} "
        r"dead_letters=1 redriven=1 worker_kills=1 broker_kills=1 lost=0 duplicates=\d+",
        last,
    ), last
