"""The dashboard for Grafana, printed from the table below: `make tables`, or `python docs/dashboard.py`.

A dashboard in JSON is 90 % of what Grafana adds by itself; what somebody wants to read, and to change, are the
rows of `PANELS` (panels.py). A test holds the file to them, and every metric in them to the table of metrics.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from panels import BROKER, PANELS, Panel

TARGET: Final = (
    Path(__file__).resolve().parents[1]
    / "examples/deploy/monitoring/grafana/dashboards/minibroker.json"
)
WIDTH: Final = 24  # columns of Grafana's grid
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
DESCRIPTION: Final = "minibroker: queues, the time that messages take, the log, and the process."


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    return {
        "uid": "minibroker",
        "title": "minibroker",
        "description": DESCRIPTION,
        "tags": ["minibroker"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,  # the cross-hair is in all panels
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables())},
        "annotations": {"list": [_starts()]},
        "panels": list(_panels()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
    }
    for name, label, query in (
        ("job", "Job", "label_values(minibroker_build_info, job)"),
        ("instance", "Broker", 'label_values(minibroker_build_info{job="$job"}, instance)'),
        ("queue", "Queue", f"label_values(minibroker_queue_messages{{{BROKER}}}, queue)"),
    ):
        many: dict[str, Any] = {}
        if name == "queue":
            many = {"multi": True, "includeAll": True, "allValue": ".*"}
            many["current"] = {"text": ["All"], "value": ["$__all"]}
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": query, "refId": name},
            "refresh": 2,  # whenever the range of time changes
            "sort": 1,
            **many,
        }


def _starts() -> dict[str, Any]:
    """Return the marks where the broker was started: its counters begin anew there."""
    return {
        "name": "Starts",
        "datasource": SOURCE,
        "enable": True,
        "expr": f"changes(minibroker_start_time_seconds{{{BROKER}}}[1m]) > 0",
        "iconColor": "orange",
    }


def _panels() -> Iterator[dict[str, Any]]:
    number = top = 0
    for title, panels in PANELS.items():
        number += 1
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "gridPos": place,
            "collapsed": False,
            "panels": [],
        }
        left, top = 0, top + 1
        for panel in panels:
            if left + panel.width > WIDTH:
                left, top = 0, top + panel.height
            number += 1
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            left += panel.width
        top += panels[-1].height


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.red is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.red}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    if panel.kind == "stat":
        options: dict[str, Any] = {
            "colorMode": "value" if panel.red is not None else "none",
            "graphMode": "area",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    else:
        custom: dict[str, Any] = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"}
        if panel.stacked:
            custom |= {"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 30}
        defaults["custom"] = custom
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": SOURCE,
                "expr": expr,
                "legendFormat": legend,
            }
            for at, (legend, expr) in enumerate(panel.series.items())
        ],
    }


def rendered() -> str:
    """Return the text of the file."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(rendered(), "utf-8")
