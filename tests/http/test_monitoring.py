"""The alert rules that are shipped: Prometheus takes them, and they ask for nothing that is not there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from minibrokerd.http.families import FAMILIES
from support.source import ROOT

ALERTS = ROOT / "examples" / "deploy" / "monitoring" / "alerts.yaml"
RULES = 16
# What a cluster of two says in which minutes, and who is called then.
CLUSTER = """
rule_files: [{rules}]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - {{series: 'minibroker_phase{{job="m",instance="a",phase="ready"}}', values: "1x9 0x20"}}
      - {{series: 'minibroker_phase{{job="m",instance="b",phase="ready"}}', values: "0x30"}}
      - {{series: 'minibroker_phase{{job="m",instance="b",phase="standby"}}', values: "1x30"}}
      - {{series: 'minibroker_phase{{job="files",instance="c",phase="ready"}}', values: "0x30"}}
      - {{series: 'minibroker_stream_epoch{{job="m",instance="a"}}', values: "1x30"}}
      - {{series: 'minibroker_stream_epoch{{job="m",instance="b"}}', values: "1x30"}}
      - {{series: 'minibroker_stream_bytes{{job="m",instance="a"}}', values: "90x30"}}
      - {{series: 'minibroker_stream_limit_bytes{{job="m",instance="a"}}', values: "0x30"}}
    alert_rule_test:
      - {{eval_time: 4m, alertname: MinibrokerNobodyLeads, exp_alerts: []}}
      - eval_time: 6m
        alertname: MinibrokerNobodyLeads
        exp_alerts:
          - exp_labels: {{severity: page, job: m}}
            exp_annotations: {{summary: "No broker leads the log."}}
      - {{eval_time: 10m, alertname: MinibrokerNobodyStandsBy, exp_alerts: []}}
      - {{eval_time: 10m, alertname: MinibrokerStreamFull, exp_alerts: []}}
"""


def test_alerts_ask_for_metrics_that_there_are() -> None:
    """By the names of their samples."""
    known = {row.sample_name for row in FAMILIES.values()}
    known |= {f"{row.name}_bucket" for row in FAMILIES.values() if row.histogram}
    expressions = re.findall(r"^ +expr: (.*)$", ALERTS.read_text("utf-8"), re.MULTILINE)
    asked = {name for each in expressions for name in re.findall(r"minibroker_\w+", each)}
    assert len(expressions) == RULES
    assert asked <= known


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing (apt-get install prometheus)"
)
def test_prometheus_takes_the_alerts() -> None:
    """`promtool check rules`."""
    command = ["promtool", "check", "rules", str(ALERTS)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{RULES} rules found" in done.stdout


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing (apt-get install prometheus)"
)
def test_somebody_is_called_where_no_broker_of_a_cluster_leads(tmp_path: Path) -> None:
    """And nobody for a broker with files that starts, or for a stream without a limit."""
    (tmp_path / "cluster.yaml").write_text(CLUSTER.format(rules=ALERTS))
    command = ["promtool", "test", "rules", str(tmp_path / "cluster.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
