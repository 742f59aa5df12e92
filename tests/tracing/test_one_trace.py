"""A request, a failing job, the dead-letter queue, a redrive, jobs of a job: one trace over four processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.broker import BrokerServer

sys.path.append(str(Path(__file__).parents[1] / "worker"))
from tree import read_spans, tree_of
from worker_process import WorkerProcess

import minibroker.sync

SET_UP = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

provider = TracerProvider()
exporter = ConsoleSpanExporter(
    out=open("spans.jsonl", "a"), formatter=lambda span: span.to_json(indent=None) + "\\n"
)
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("app")
"""

APP = (
    SET_UP
    + """
import logging
import pathlib

import minibroker
import minibroker.sync

app = minibroker.App()

@app.handler("emails", max_attempts=2, retry_delay_ms=20)
async def send(body: str) -> None:
    logging.getLogger("shop").warning("sending %s", body)
    if not pathlib.Path("repaired").exists():
        raise LookupError("no such card")
    with minibroker.sync.connect() as broker:
        broker.queue("labels").publish(body)
        broker.queue("pages").publish(body)

@app.handler("labels")
def print_label(body: str) -> None:
    with tracer.start_as_current_span("print"):
        pass

@app.handler("pages", executor="process")
def render(body: str) -> None:
    with tracer.start_as_current_span("render"):
        pass
"""
)

CLIENT = (
    SET_UP
    + """
import minibroker.sync

with minibroker.sync.connect() as broker:
    with tracer.start_as_current_span("signup"):
        broker.queue("emails", max_attempts=2, retry_delay_ms=20).publish("bob@example.com")
"""
)

TREE = """\
signup INTERNAL
  publish emails PRODUCER
    process emails CONSUMER attempt=1 LookupError
      nack emails CLIENT attempt=1
    process emails CONSUMER attempt=2 LookupError
      nack emails CLIENT attempt=2
    process emails CONSUMER attempt=1
      publish labels PRODUCER
        process labels CONSUMER attempt=1
          print INTERNAL
      publish pages PRODUCER
        process pages CONSUMER attempt=1
          render INTERNAL"""


def test_all_of_it_is_one_trace(tmp_path: Path, broker_server: BrokerServer) -> None:
    worker = WorkerProcess(tmp_path / "app", broker_server.url, APP)
    try:
        _live_through(worker, broker_server)
    finally:
        worker.close()
    spans = read_spans(worker.folder / "spans.jsonl")
    assert tree_of(spans) == TREE
    trace_ids = {span["context"]["trace_id"].removeprefix("0x") for span in spans}
    assert len(trace_ids) == 1
    # Lines of the worker, and what its handlers log, name the span that they are about.
    lines = [*worker.events("failed"), *worker.events("done"), *worker.events("library")]
    assert {line["event"] for line in lines} == {"failed", "done", "library"}
    assert {line["trace_id"] for line in lines} == trace_ids
    of_work = {
        span["context"]["span_id"].removeprefix("0x")
        for span in spans
        if span["name"].startswith("process ")
    }
    assert {line["span_id"] for line in lines} == of_work
    assert "trace_id" not in worker.events("worker_started")[0]


def _live_through(worker: WorkerProcess, server: BrokerServer) -> None:
    worker.says("worker_started")
    subprocess.run(
        [sys.executable, "-c", CLIENT],
        cwd=worker.folder,
        env={**os.environ, "MINIBROKER_URL": server.url},
        check=True,
    )
    with minibroker.sync.connect(server.url) as broker:
        worker.says("failed", 2)
        broker.queue("emails").join(timeout=20, delayed=True)
        dead = broker.queue("emails.dlq")
        (letter,) = dead.peek()
        trace_id = worker.events("failed")[0]["trace_id"]
        assert letter.headers["traceparent"].split("-")[1] == trace_id
        (worker.folder / "repaired").touch()
        assert dead.redrive() == 1
        worker.says("done", 3)
        worker.signal()
        assert worker.ends() == 0
