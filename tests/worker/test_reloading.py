"""`--reload`: a file that changes replaces the workers, and one that is broken does not end them for good."""

from __future__ import annotations

from collections.abc import Callable

from test_working import HEAD
from worker_process import WorkerProcess

import minibroker
from support.processes import look_until

StartWorker = Callable[..., WorkerProcess]


def version(number: int) -> str:
    """Return an app that says which one it is."""
    return (
        HEAD
        + f"""
@app.handler("jobs")
async def work(message):
    pathlib.Path(f"{{message.body}}-by-{number}").touch()
"""
    )


def rewrite(worker: WorkerProcess, source: str) -> None:
    """Change the app until the worker has noticed: when it began to watch is not told."""
    before = len(worker.events("reloading"))

    def noticed() -> bool:
        if len(worker.events("reloading")) > before:
            return True
        (worker.folder / "app.py").write_text(source, "utf-8")
        return False

    look_until(noticed, worker.process, "it notices")


async def test_a_changed_file_replaces_the_worker(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    jobs = broker.queue("jobs")
    worker = start_worker(version(1), "--reload")
    await jobs.publish("a")
    worker.sees("a-by-1")
    rewrite(worker, version(2))
    assert "app.py" in worker.events("reloading")[-1]["changed"]
    worker.says("worker_started", 2)
    await jobs.publish("b")
    worker.sees("b-by-2")
    rewrite(worker, "1 / 0\n")
    look_until(lambda: "ZeroDivisionError" in worker.output, worker.process, "it says so")
    rewrite(worker, version(3))
    await jobs.publish("c")
    worker.sees("c-by-3")
    worker.signal()
    assert worker.ends() == 0, worker.output
