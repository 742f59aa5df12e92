"""The alert rules that are shipped: Prometheus takes them, and they ask for nothing that is not there."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from minibrokerd.http.families import FAMILIES
from support.source import ROOT

ALERTS = ROOT / "examples" / "deploy" / "monitoring" / "alerts.yaml"


def test_alerts_ask_for_metrics_that_there_are() -> None:
    """By the names of their samples."""
    known = {row.sample_name for row in FAMILIES.values()}
    known |= {f"{row.name}_bucket" for row in FAMILIES.values() if row.histogram}
    expressions = re.findall(r"^ +expr: (.*)$", ALERTS.read_text("utf-8"), re.MULTILINE)
    asked = {name for each in expressions for name in re.findall(r"minibroker_\w+", each)}
    assert len(expressions) == 10
    assert asked <= known


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing (apt-get install prometheus)"
)
def test_prometheus_takes_the_alerts() -> None:
    """`promtool check rules`."""
    command = ["promtool", "check", "rules", str(ALERTS)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 rules found" in done.stdout
