"""What a worker and a program's own log say of a message name its span, where there is one."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from opentelemetry import trace
from recorded import Recorded, id_of, trace_of

from minibroker.testing import MemoryBroker
from minibroker.worker.following import Follows
from minibroker.worker.reporting import LogReport
from minibrokerd.process import logs
from minibrokerd.workers.lines import Lines


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("traced", [True, False])
async def test_a_line_of_a_success_names_the_span(
    format: str, traced: bool, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(logs, "write_lines", written.extend)
    if not traced:
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)  # metrics alone
    lines = Lines(format, "info")
    assert lines.done is not None
    async with MemoryBroker() as broker:
        await broker.queue("emails").publish(b"1")
        (message,) = await broker.queue("emails").receive()
        async with message.process():
            lines.done(message, 0.5)
        await asyncio.sleep(0)  # it is written at the end of the turn
    (line,) = written
    if not traced:
        assert "trace_id" not in line
        return
    span = recorded.one("process emails")
    ids = f"{trace_of(span):032x}", f"{id_of(span):016x}"
    if format == "json":
        said = json.loads(line)
        assert (said["trace_id"], said["span_id"]) == ids
    else:
        assert line.endswith(" ms=500.0 trace_id={} span_id={}".format(*ids))


async def test_a_programs_own_log_has_them_as_attributes(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "minibroker.worker")
    report = LogReport()
    assert report.done is not None
    async with MemoryBroker() as broker:
        await broker.queue("emails").publish(b"1")
        (message,) = await broker.queue("emails").receive()
        async with message.process():
            report.done(message, 0.5)
            report.failed(message, 0.5, LookupError("no card"), Follows(1, None, None, ""))
        report.done(message, 0.5)
    span = recorded.one("process emails")
    found = [getattr(record, "trace_id", None) for record in caplog.records]
    assert found == [f"{trace_of(span):032x}"] * 2 + [None]
