"""`make bench`: throughput and latency of a real broker, beside what this machine can do.

Each row gets a fresh broker process and a fresh client process. Around every repetition stands a slice
of both gauges (gauges.py), so a slow minute of the machine shows in the figure and in the gauge alike.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gauges import LoopGauge, SyncGauge, percentile, record_bytes
from benchmarks.report import print_report
from benchmarks.rows import BODY_BYTES, ROWS, Row

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "out"
SYNC_SAMPLES = 2_000
LISTENING = re.compile(r"listening on (\S+:\d+)")


def run_row(row: Row, repetitions: int, loop: str) -> dict[str, Any]:
    """Measure one row and return its figures."""
    folder = OUT / "data"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    size_bytes = record_bytes(row.record_messages, BODY_BYTES)
    sync, count = SyncGauge(folder, size_bytes), LoopGauge()
    results = []
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        stack.callback(sync.close)
        url = start_broker(stack, folder / "broker", loop)
        client = start_client(stack, url, row, loop)
        for _ in range(repetitions):
            gauge(sync, count, repetitions)
            results.append(repeat(client))
        gauge(sync, count, repetitions)
    return figures(row, results, sync, count)


def gauge(sync: SyncGauge, count: LoopGauge, repetitions: int) -> None:
    """Take one of the `repetitions + 1` slices of both gauges."""
    slices = repetitions + 1
    sync.measure(-(-SYNC_SAMPLES // slices))
    count.measure(1 / slices)


def start_broker(stack: ExitStack, data_dir: Path, loop: str) -> str:
    """Start a broker that ends with the stack and return its address."""
    process = start(
        stack, "minibrokerd", "serve", "--data-dir", str(data_dir), "--port", "0", "--loop", loop
    )
    printed = []
    assert process.stdout is not None
    for line in process.stdout:
        printed.append(line)
        if found := LISTENING.search(line):
            return f"minibroker://{found[1]}"
    raise SystemExit("the broker did not start:\n" + "".join(printed))


def start_client(stack: ExitStack, url: str, row: Row, loop: str) -> subprocess.Popen[str]:
    """Start the client process of a row; it ends with the stack."""
    return start(stack, "benchmarks.client", url, row.name, loop)


def start(stack: ExitStack, module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start `python -m module`; its standard error goes to the terminal."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if module == "minibrokerd" else None,
        text=True,
        cwd=ROOT,
    )
    stack.callback(end, process)
    return process


def end(process: subprocess.Popen[str]) -> None:
    """End a process whatever it does; its figures are in."""
    process.kill()
    process.communicate()


def repeat(client: subprocess.Popen[str]) -> dict[str, Any]:
    """Let the client run one repetition and return what it measured."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write("go\n")
    client.stdin.flush()
    line = client.stdout.readline()
    if not line:
        raise SystemExit(f"the client ended with {client.wait()}; its error stands above")
    result: dict[str, Any] = json.loads(line)
    return result


def figures(
    row: Row, results: list[dict[str, Any]], sync: SyncGauge, count: LoopGauge
) -> dict[str, Any]:
    """Return all parameters and figures of a row, for the table and for bench.json."""
    rates = sorted(result["messages"] / result["seconds"] for result in results)
    made: dict[str, Any] = {
        **asdict(row),
        "frame": row.frame,
        "body": f"bytes, {BODY_BYTES}",
        "rates": [round(result["messages"] / result["seconds"]) for result in results],
        "min": round(rates[0]),
        "median": round(median(rates)),
        "max": round(rates[-1]),
        "sync_bytes": sync.size_bytes,
        "sync_p50_us": round(sync.p50_us, 1),
        "sync_samples": len(sync.samples),
        "loop_per_second": round(count.per_second),
    }
    if row.max_ratio:
        made.update(latency(results, sync))
    return made


def latency(results: list[dict[str, Any]], sync: SyncGauge) -> dict[str, float]:
    """Return p50 and p99 of single calls in microseconds, and p50 / S."""
    calls = [call * 1e6 for result in results for call in result["calls"]]
    p50, p99 = percentile(calls, 50), percentile(calls, 99)
    return {"p50_us": round(p50, 1), "p99_us": round(p99, 1), "ratio": round(p50 / sync.p50_us, 2)}


def machine(loop: str) -> dict[str, str]:
    """Return what the figures were measured on."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    return {
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "loop": loop,
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def main() -> None:
    """Run the rows, print the table, write benchmarks/out/bench.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(row.name for row in ROWS))
    parser.add_argument("--repetitions", type=int, default=5)
    default = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default=default)
    options = parser.parse_args()
    if unknown := set(options.rows) - {row.name for row in ROWS}:
        parser.error(f"no row is called {', '.join(sorted(unknown))}")
    measured = []
    for row in ROWS:
        if not options.rows or row.name in options.rows:
            print(f"{row.name} ...", file=sys.stderr, flush=True)
            measured.append(run_row(row, options.repetitions, options.loop))
    report = {"machine": machine(options.loop), "rows": measured}
    (OUT / "bench.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    print_report(report)


if __name__ == "__main__":
    main()
