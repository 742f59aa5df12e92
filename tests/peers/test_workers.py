"""`make bench-workers`, `make bench-blocking`: jobs are counted wherever they run, ratios taken within a round."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pytest
from benchmarks import blocking
from benchmarks.peers.servers import SideFailed
from benchmarks.workers.page import markdown
from benchmarks.workers.running import repetition
from benchmarks.workers.settings import MINIBROKER, SETTINGS, Setting, chosen
from benchmarks.workers.tally import Tally

ROOT = Path(__file__).resolve().parents[2]
THREADS, EACH = 4, 5_000


def count_some(tally: Tally) -> None:
    """Count in this thread."""
    for _ in range(EACH):
        tally.done()


def count_in_threads(tally: Tally) -> None:
    """Count in some threads at once."""
    each = [threading.Thread(target=count_some, args=(tally,)) for _ in range(THREADS)]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()


def test_jobs_of_threads_and_forked_processes_are_counted_to_the_last(tmp_path: Path) -> None:
    """A cell for each thread: two that shared one would lose counts."""
    tally = Tally(tmp_path / "tally")
    tally.done()  # the children begin with the cells of this process
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=count_in_threads, args=(tally,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    tally.done()
    assert tally.count() == 2 + 2 * THREADS * EACH


def test_another_process_finds_the_cells_by_the_file(tmp_path: Path) -> None:
    """A worker opens the file by its name."""
    Tally(tmp_path / "tally").done()
    second = Tally(tmp_path / "tally")
    second.done()
    assert second.count() == 2


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_has_a_job(setting: Setting) -> None:
    """Its module stands in the folder of the jobs."""
    assert (ROOT / f"{setting.module.replace('.', '/')}.py").is_file()
    assert setting.jobs % 500 == 0, "jobs are published in batches"


def test_settings_are_chosen_by_name_or_framework() -> None:
    """Without a name: all."""
    assert [each.name for each in chosen(["rq-simple"])] == ["rq-simple"]
    assert {each.framework for each in chosen([MINIBROKER])} == {MINIBROKER}
    assert chosen([]) == list(SETTINGS)
    with pytest.raises(ValueError, match="huey"):
        chosen(["huey"])


def test_the_worker_is_watched_until_the_last_job_is_done(tmp_path: Path) -> None:
    """A real broker, a real worker, 1,000 jobs."""
    setting = next(each for each in SETTINGS if each.name == "minibroker-100")
    timed = repetition(setting, tmp_path / "one", share=0.005)
    assert 0 < timed.jobs <= 1_000
    assert timed.rate > 0


def test_a_worker_that_ends_is_said_with_its_words(tmp_path: Path) -> None:
    """It is no figure."""
    setting = next(each for each in SETTINGS if each.name == "minibroker")
    broken = Setting(
        "broken", MINIBROKER, (), "", ("minibroker", "worker", "no_module:app"), setting.jobs
    )
    with pytest.raises(SideFailed, match="no_module"):
        repetition(broken, tmp_path / "one", share=0.01)


def made(**changes: Any) -> dict[str, Any]:
    """A result of two rounds."""

    def row(name: str, framework: str, rates: list[float]) -> dict[str, Any]:
        return {"name": name, "framework": framework, "how": "so", "rates": rates, "cpu_us": [8.0]}

    return {
        "date": "2026-11-28 19:55 UTC",
        "commit": "abc",
        "python": "3.11.7",
        "cores": "2",
        "system": "Linux",
        "fdatasync_p50_us": 90.0,
        "loop_per_second": 119e6,
        "versions": {"celery": "5.7.0"},
        "consume": [800_000, 400_000],
        "rows": [
            row("minibroker-100", MINIBROKER, [200_000, 100_000]),
            row("celery", "celery", [2_000, 4_000]),
            row("rq", "rq", [100, 100]),
        ],
        "failed": {},
        **changes,
    }


def test_ratios_of_workers_are_taken_within_each_round() -> None:
    """The medians alone would say 50 for celery; each round saw another minute."""
    page = markdown(made())
    assert "| celery | so | 3,000 (2,000 - 4,000) | 62.5 (25 - 100) x | 8 |" in page
    assert "minibroker-100 beside celery, the fastest of the others: 62.5 (25 - 100) times" in page
    assert "- minibroker-100: 0.25 (0.25 - 0.25)" in page


def test_a_page_of_our_workers_alone_compares_nothing() -> None:
    """`--only minibroker`."""
    page = markdown(made(rows=made()["rows"][:1]))
    assert "| minibroker-100 | so | 150,000 (100,000 - 200,000) | - | 8 |" in page
    assert "beside" not in page


def test_a_lone_publish_is_compared_within_each_round(tmp_path: Path) -> None:
    """Real processes: the asyncio client, the blocking one, its threads; redis where it is there."""
    measured = blocking.measure(tmp_path / "all", pairs=2, calls=20)
    told = "\n".join(blocking.lines(measured))
    assert len(measured["p50_us"]["sync"]) == 2
    assert "sync / asyncio: " in told
    assert "16 threads / one: " in told


def test_quotients_are_those_of_the_rounds() -> None:
    """100 / 200, then 300 / 300."""
    assert blocking.quotients([100, 300], [200, 300]) == "0.75 (0.5 - 1)"
