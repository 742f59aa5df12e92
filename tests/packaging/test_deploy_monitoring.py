"""Prometheus and Grafana beside the broker: their files, and the whole of the compose file started by hand.

There is no container engine here, so each process of the compose file is started with the command line, the
variables and the files that stand there; addresses, folders and the time between two scrapes alone are others.
Grafana is no package of a registry, so its files are read by the library that is made from its own schemas.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import jsonschema
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from ruamel.yaml import YAML

import minibroker.sync
from minibrokerd.http.families import FAMILIES
from minibrokerd.http.family import Family
from support.processes import TETHER, look_until
from support.source import ROOT

DEPLOY = ROOT / "examples" / "deploy"
MONITORING = DEPLOY / "monitoring"
DASHBOARD_PATH = MONITORING / "grafana" / "dashboards" / "minibroker.json"
SCHEMA = json.loads(Path(__file__).with_name("grafana_dashboard.schema.json").read_text("utf-8"))
DASHBOARD: dict[str, Any] = json.loads(DASHBOARD_PATH.read_text("utf-8"))
BIN = Path(sys.executable).parent
NAME = re.compile(r"\b((?:minibroker|process)_\w+)")

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="Prometheus is missing (apt-get install prometheus)",
)


def yaml(path: Path) -> Any:
    """Return what a file says."""
    return YAML(typ="safe").load(path)


def service(name: str) -> dict[str, Any]:
    """Return a service of the compose file."""
    found: dict[str, Any] = yaml(DEPLOY / "compose.yaml")["services"][name]
    return found


def expressions() -> list[str]:
    """Return all expressions of the dashboard: of panels, of marks, and of what its variables ask."""
    panels = [each["expr"] for panel in DASHBOARD["panels"] for each in panel.get("targets", ())]
    marks = [each["expr"] for each in DASHBOARD["annotations"]["list"]]
    return [*panels, *marks]


def queries() -> list[str]:
    """Return what the variables of the dashboard ask for."""
    variables = DASHBOARD["templating"]["list"]
    return [each["query"]["query"] for each in variables if each["type"] == "query"]


def concrete(expression: str, instance: str) -> str:
    """Return an expression with its variables replaced, as Grafana does."""
    values = {"$job": "minibroker", "$instance": instance, "$queue": ".*"}
    for name, value in {**values, "$__rate_interval": "1m"}.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


# -- the dashboard --------------------------------------------------------------------------------


def printer() -> ModuleType:
    """Return docs/dashboard.py, which is a script and belongs to no package."""
    spec = importlib.util.spec_from_file_location("dashboard", ROOT / "docs" / "dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "docs"))  # where it finds its panels
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def test_the_dashboard_is_printed_from_its_table() -> None:
    """After a change: `make tables`."""
    assert printer().rendered() == DASHBOARD_PATH.read_text("utf-8")


def test_the_dashboard_fits_the_schema() -> None:
    """Types and choices, and no panel beside the grid or over another; and the schema can refuse."""
    jsonschema.validate(DASHBOARD, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(DASHBOARD | {"graphTooltip": "shared"}, SCHEMA)
    cells = set[tuple[int, int]]()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not mine & cells
        assert max(x for x, _ in mine) < 24
        cells |= mine
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_grafana_knows_every_key_of_the_dashboard() -> None:
    """What its own types do not know, they leave out when they write it again."""
    register_default_plugins()

    def again(value: dict[str, Any]) -> Any:
        return json.loads(JSONEncoder().encode(Dashboard.from_json(value)))

    assert lost(DASHBOARD, again(DASHBOARD)) == []
    spoilt = json.loads(json.dumps(DASHBOARD).replace('"legendFormat"', '"legendForm"', 1))
    assert len(lost(spoilt, again(spoilt))) == 1


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """Return where something of the first is not in the second."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            each
            for key, value in before.items()
            for each in (
                lost(value, after[key], f"{path}.{key}") if key in after else [f"{path}.{key}"]
            )
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [each for at, (one, two) in pairs for each in lost(one, two, f"{path}[{at}]")]
    return [] if before == after else [path]


def _samples(row: Family) -> list[str]:
    if row.kind != "histogram":
        return [row.sample_name]
    return [f"{row.name}_{end}" for end in ("bucket", "sum", "count")]


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    """Each name is one of our samples; and what it is narrowed to is a label of it."""
    samples = {row.name: _samples(row) for row in FAMILIES.values()}
    known = {name for names in samples.values() for name in names}
    of_queues = {
        name for row in FAMILIES.values() if "queue" in row.labels for name in samples[row.name]
    }
    assert len(expressions()) > 40
    for each in [*expressions(), *queries()]:
        names = set(NAME.findall(each))
        assert names, each
        assert names <= known, each
        for name, labels in re.findall(r"(minibroker_\w+)\{([^}]*)\}", each):
            assert ("queue" in labels) <= (name in of_queues), each


# What no panel shows, and where it is to be seen instead.
NOT_SHOWN = {
    "minibroker_stream_lag_entries": "the seconds of it are shown",
    "minibroker_recovery_seconds": "one number for each start",
    "minibroker_starts": "the marks are starts",
    "minibroker_log_batch_bytes": "beside the records of a batch",
    "minibroker_log_batches": "beside the records of a batch",
    "minibroker_log_segments": "the bytes are shown",
    "minibroker_queue_live_bytes": "the bytes of the log are shown together",
    "minibroker_consumer_delivered": "deliveries of sessions are shown",
    "minibroker_consumers_left_out": "only of the series themselves",
    "minibroker_sessions_left_out": "only of the series themselves",
    "minibroker_session_acked": "what queues ack is shown",
    "minibroker_session_deliveries": "what is delivered is shown",
    "minibroker_key_group_wait_seconds": "of groups that an application names; the queue is shown",
    "minibroker_key_group_run_seconds": "the same",
    "minibroker_schedule_last_time_seconds": "the next time is shown",
    "minibroker_policies": "`minibroker policy list` says which; one that is set aside is an event",
    "minibroker_schemas": "`minibroker queue schema` shows each",
    "minibroker_exchanges": "what is routed shows in the queues that get it",
    "minibroker_bindings": "the same",
    "minibroker_exchange_messages": "the same",
    "minibroker_routed_messages": "the same",
    "minibroker_retained_messages": "the page and `queue show` have retained logs",
    "minibroker_retained_first_offset": "the same",
    "minibroker_group_position": "its lag says more",
}


def test_every_metric_has_a_panel_or_a_reason() -> None:
    """One that is new is put on the dashboard with it; counters of queues have the few that matter most."""
    shown = {name for each in [*expressions(), *queries()] for name in NAME.findall(each)}
    shown = {re.sub("_(total|info|bucket|sum|count)$", "", name) for name in shown}
    rows = [row for row in FAMILIES.values() if not row.counter]
    missing = {row.name for row in rows if row.name.startswith("minibroker_")} - shown
    assert missing == NOT_SHOWN.keys()


# -- what is provisioned --------------------------------------------------------------------------


def test_grafana_is_given_the_dashboard_and_prometheus() -> None:
    """Folders of the compose file are those of the providers; the source is the service beside it."""
    volumes = dict(each.split(":")[:2] for each in service("grafana")["volumes"])
    mounted = {target: DEPLOY / source for source, target in volumes.items() if "/" in source}
    provisioning = mounted["/etc/grafana/provisioning"]
    (source,) = yaml(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    host, port = source["url"].removeprefix("http://").split(":")
    assert source["type"] == "prometheus"
    assert service(host)["ports"] == [f"127.0.0.1:{port}:{port}"]
    (provider,) = yaml(provisioning / "dashboards" / "minibroker.yaml")["providers"]
    folder = mounted[provider["options"]["path"]]
    assert [path.name for path in folder.iterdir()] == ["minibroker.json"]
    home = service("grafana")["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/minibroker.json"
    interval = yaml(MONITORING / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval


def test_only_this_machine_reaches_what_compose_publishes() -> None:
    """Every port of every service; the broker's are those of the image."""
    services = yaml(DEPLOY / "compose.yaml")["services"]
    ports = {name: each.get("ports", []) for name, each in services.items()}
    assert all(port.startswith("127.0.0.1:") for each in ports.values() for port in each)
    assert ports["minibroker"] == ["127.0.0.1:7272:7272", "127.0.0.1:7273:7273"]


# -- all of it by hand ----------------------------------------------------------------------------

Start = Callable[[Sequence[str], Mapping[str, str], Path], subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program in a folder, which ends with the test; what it prints is in a file of its name."""
    started: list[subprocess.Popen[bytes]] = []

    def run(
        command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> subprocess.Popen[bytes]:
        path = shutil.which(command[0], path=f"{BIN}:{os.environ['PATH']}")
        assert path is not None
        words = [sys.executable, "-I", "-S", "-c", TETHER, path, *command[1:]]
        with (tmp_path / f"{len(started)}-{command[0]}").open("wb") as output:
            process = subprocess.Popen(
                words,
                env={"PATH": os.environ["PATH"], **environment},
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield run
    for process in started:
        process.terminate()
    for process in started:
        process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Whether something answers there with 200."""
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def image_environment() -> dict[str, str]:
    """Return the variables that the image sets."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


def prometheus_files(folder: Path, target: str) -> str:
    """Copy what is mounted for Prometheus, with this target and short times; return its command line."""
    shutil.copytree(MONITORING, folder)
    config = folder / "prometheus.yml"
    text = config.read_text("utf-8")
    assert text.count('"minibroker:7273"') == 1
    text = text.replace('"minibroker:7273"', f'"{target}"').replace("interval: 10s", "interval: 1s")
    config.write_text(text, "utf-8")
    return " ".join(service("prometheus")["command"])


@needs_prometheus
def test_prometheus_takes_its_configuration() -> None:
    """`promtool check config`, with the rules that it names."""
    command = ["promtool", "check", "config", str(MONITORING / "prometheus.yml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


@needs_prometheus
def test_all_of_compose_started_by_hand(tmp_path: Path, start: Start) -> None:
    """A message goes through broker and worker, Prometheus has seen it, and each panel has its answer."""
    port, http, prometheus = free_port(), free_port(), free_port()
    broker, worker = service("minibroker"), service("worker")
    environment = image_environment() | broker["environment"]
    own = {
        "MINIBROKER_DATA_DIR": str(tmp_path / "data"),
        "MINIBROKER_PORT": str(port),
        "MINIBROKER_HTTP": environment["MINIBROKER_HTTP"].replace("7273", str(http)),
    }
    process = start(["minibroker", *broker["command"]], environment | own, tmp_path)
    look_until(lambda: answers(f"http://127.0.0.1:{http}/readyz"), process, "it is ready")
    assert answers_to_name(http, "minibroker")
    assert not answers_to_name(http, "elsewhere")

    health = str(tmp_path / "health")
    words = [health if word == "/tmp/health" else word for word in worker["command"]]
    url = f"minibroker://127.0.0.1:{port}"
    app = shutil.copytree(DEPLOY / "app", tmp_path / "app")
    start(["minibroker", *words], worker["environment"] | {"MINIBROKER_URL": url}, app)
    with minibroker.sync.connect(url) as connection:
        connection.queue("welcomes").publish({"to": "bob"})
        connection.queue("welcomes").publish({"nobody": 1})  # it dies
        connection.queue("events", kind="log").publish("one")
        connection.log("events").declare_group("audit")

    target = f"127.0.0.1:{http}"
    line = prometheus_files(tmp_path / "etc", target)
    line = line.replace("/etc/prometheus", str(tmp_path / "etc"))
    line = line.replace("=/prometheus", f"={tmp_path / 'tsdb'}")
    address = f"127.0.0.1:{prometheus}"
    process = start(["prometheus", *line.split(), f"--web.listen-address={address}"], {}, tmp_path)
    look_until(lambda: answers(f"http://{address}/-/ready"), process, "Prometheus is ready")
    with httpx.Client(base_url=f"http://{address}/api/v1", trust_env=False) as client:

        def result(expression: str) -> list[Any]:
            answer = client.get("/query", params={"query": expression})
            assert answer.status_code == 200, (expression, answer.text)
            found: list[Any] = answer.json()["data"]["result"]
            return found

        of = f'{{queue="welcomes",instance="{target}"}} == 1'
        done = f"minibroker_queue_acked_total{of} and minibroker_queue_dead_lettered_total{of}"
        look_until(lambda: bool(result(done)), process, "it has seen both messages")
        # A rate needs two looks.
        looks = f'count_over_time(up{{instance="{target}"}}[1m]) >= 2'
        look_until(lambda: bool(result(looks)), process, "it has looked twice")
        silent = [each for each in expressions() if not result(concrete(each, target))]
        # What is shown only when something is wrong, or has just begun; and what a log in files has not.
        silent = [each for each in silent if "minibroker_stream_" not in each]
        assert all("> 0" in each for each in silent), silent
        assert len(silent) <= 7
        rules = client.get("/rules").json()["data"]["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        assert len(rules) == 16


def answers_to_name(port: int, name: str) -> bool:
    """Whether the broker's page may be called by this name."""
    url, headers = f"http://127.0.0.1:{port}/metrics", {"host": f"{name}:{port}"}
    return httpx.get(url, headers=headers, trust_env=False).status_code == 200
