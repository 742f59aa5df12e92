"""The pure parts of `make bench-peers`: ratios, the tables of works and sides, the page that is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.gauges import percentile
from benchmarks.peers import sides, works
from benchmarks.peers.__main__ import QUICK, Report, run
from benchmarks.peers.contestant import Sample
from benchmarks.peers.ratios import better, compare, shortened
from benchmarks.peers.servers import KafkaServer
from benchmarks.peers.tables import HEADINGS, markdown
from benchmarks.peers.works import BYTES, MICROSECONDS, RATE, WORKS
from benchmarks.replicated import page as replicated

CLIENTS = Path(works.__file__).parent / "clients"
DOES = [
    pytest.param(side, work, id=f"{side.name} {work.name}")
    for side in sides.SIDES
    for work in WORKS
    if sides.does(side, work)
]


def row(**changes: Any) -> dict[str, Any]:
    """A row as match.py makes it."""
    return {
        "work": "publish-one",
        "title": "one publish at a time",
        "against": "redis-always",
        "durability": "sync",
        "their_durability": "AOF, appendfsync always",
        "how": "XADD",
        "tuned": "",
        "sync_p50_us": 131.0,
        "loop_per_second": 65e6,
        "ours": 540.0,
        "theirs": 1_080.0,
        "unit": MICROSECONDS,
        "ratio_min": 1.9,
        "ratio_median": 2.0,
        "ratio_max": 2.1,
        "our_p99_us": 770.0,
        "prefetch": "-",
        "window": 1,
        "batch": 1,
        "frame": "1",
        "body": "bytes, 100",
        "versions": {"minibroker": "0.1.0", "redis": "7.0.15"},
        **changes,
    }


def test_ratios_are_taken_within_each_pair() -> None:
    """The medians alone would say 2.0; each pair saw another minute."""
    compared = compare([(100, 100), (200, 50), (400, 100)], RATE)
    assert (compared.ratio_min, compared.ratio_median, compared.ratio_max) == (1.0, 4.0, 4.0)
    assert (compared.ours, compared.theirs, compared.pairs) == (200, 100, 3)


@pytest.mark.parametrize(("unit", "expected"), [(RATE, 0.5), (MICROSECONDS, 2.0), (BYTES, 2.0)])
def test_above_one_always_means_that_minibroker_is_better(unit: str, expected: float) -> None:
    assert better(50, 100, unit) == expected


@pytest.mark.parametrize("unit", [RATE, MICROSECONDS, BYTES])
def test_what_cannot_be_measured_divides_by_no_zero(unit: str) -> None:
    """A server may give memory back while its queue grows."""
    assert better(10, -5, unit) > 0
    assert better(-5, 10, unit) > 0


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([5, 1, 3], 50) == 3
    assert percentile(range(100), 99) == 99
    assert percentile([7], 99) == 7


@pytest.mark.parametrize(
    ("value", "expected"), [(0.123456, 0.123), (12.3456, 12.3), (123_456.7, 123_457)]
)
def test_figures_keep_three_digits(value: float, expected: float) -> None:
    assert shortened(value) == expected


def test_names_are_unique() -> None:
    assert len({work.name for work in WORKS}) == len(WORKS)
    assert len({side.name for side in sides.SIDES}) == len(sides.SIDES)


@pytest.mark.parametrize(("side", "work"), DOES)
def test_every_row_says_how_the_peer_does_it(side: sides.Side, work: works.Work) -> None:
    assert sides.how(side, work)


def test_every_work_is_measured_somewhere_and_every_peer_with_a_backlog() -> None:
    assert {param.values[1] for param in DOES} == set(WORKS)
    assert {side.peer.name for side in sides.SIDES if side.backlog} == {
        side.peer.name for side in sides.SIDES
    }


def test_many_acks_are_asked_only_of_peers_that_have_them() -> None:
    many = next(work for work in WORKS if work.many_acks)
    asked = {side.peer.name for side in sides.SIDES if sides.does(side, many)}
    assert asked == {"redis", "rabbitmq", "kafka"}


def test_a_blocking_publish_is_asked_only_of_peers_that_have_one() -> None:
    """Each of them has it: the worker would end in the middle of a run."""
    blocking = next(work for work in WORKS if work.do == "one_blocking")
    asked = {side.peer.name for side in sides.SIDES if sides.does(side, blocking)}
    assert asked == {"redis", "redis_lists", "beanstalkd"}
    for name in asked:
        source = (CLIENTS / f"{name}.py").read_text("utf-8")
        assert "def blocking(self)" in source


def test_a_prefetch_that_is_not_the_default_shows_it() -> None:
    shown = {work.prefetch: work.prefetch_shown for work in WORKS}
    assert (shown[0], shown[1], shown[32]) == ("-", "1", "32 (default 1)")


@pytest.mark.parametrize("choose", [sides.chosen, works.chosen])
def test_a_name_that_does_not_exist_is_refused(choose: Any) -> None:
    with pytest.raises(ValueError, match="is called nothing"):
        choose(["nothing"])


def test_a_peer_names_all_its_sides() -> None:
    assert [side.name for side in sides.chosen(["redis"])] == ["redis-always", "redis-everysec"]


def test_a_peer_that_is_missing_says_how_to_get_it() -> None:
    gone = sides.Peer("gone", "no-such-program", "json", "gone", "apt-get install gone")
    assert gone.missing().endswith("apt-get install gone")


def test_kafka_has_a_side_for_each_durability_and_fills_a_backlog_at_the_faster_one() -> None:
    known = {side.name: (side.level, side.backlog) for side in sides.chosen(["kafka"])}
    assert known == {"kafka-always": ("sync", False), "kafka-default": ("lazy", True)}


def test_kafka_is_missing_until_its_folder_has_jars(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither a java nor an empty folder is enough."""
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    assert "set KAFKA_HOME to an unpacked Kafka" in sides.KAFKA.missing()
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    assert sides.KAFKA.missing() == sides.KAFKA.get
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka_2.13-3.7.0.jar").touch()
    assert sides.KAFKA.missing() != sides.KAFKA.get


def test_the_version_of_kafka_is_that_of_its_jar(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    (tmp_path / "libs").mkdir()
    for jar in ("kafka-clients-3.6.0.jar", "kafka_2.13-3.7.0.jar", "scala-library-2.13.12.jar"):
        (tmp_path / "libs" / jar).touch()
    assert KafkaServer(tmp_path / "server", "").version() == "3.7.0"


def test_only_the_side_that_syncs_tells_kafka_to_flush(tmp_path: Path) -> None:
    """It stands in the settings of the server, so it holds for the committed offsets as well."""
    for side in sides.chosen(["kafka"]):
        KafkaServer(tmp_path / side.name, side.option)
        written = (tmp_path / side.name / "server.properties").read_text("utf-8")
        assert ("log.flush.interval.messages=1\n" in written) == (side.level == "sync")


def test_what_is_missing_is_said_once_a_peer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    report = Report(tmp_path, {}, [])
    run(tmp_path, QUICK, report, sides.chosen(["kafka"]), WORKS)
    assert report.skipped == [f"kafka: skipped: {sides.KAFKA.get}"]


def test_the_page_has_a_table_for_each_side_and_what_was_skipped() -> None:
    rows = [row(), row(against="redis-everysec", durability="lazy", how="a|b")]
    page = markdown({"commit": "abc"}, rows, ["kafka: skipped"])
    assert "commit abc." in page
    assert page.index("minibroker `sync`") < page.index("minibroker `lazy`")
    assert "| 540 (p99 770) | 1,080 | us | 2 | 1.9 - 2.1 | - |" in page
    assert "- kafka: skipped" in page
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(HEADINGS) + 1}


def test_a_row_of_replicated_queues_has_ratios_within_its_rounds() -> None:
    """Two rounds, of which the second was slow for both: twice as good in each."""
    lone = next(work for work in WORKS if work.name == "publish-one")
    samples = {
        "stream": [Sample(100.0, 1.0, {"p99_us": 300.0}), Sample(900.0, 1.0, {"p99_us": 500.0})],
        "rabbitmq": [
            Sample(200.0, 1.0, {"p99_us": 400.0}),
            Sample(1_800.0, 1.0, {"p99_us": 600.0}),
        ],
    }
    gauges = {"sync_p50_us": 80.0, "loop_per_second": 30e6}
    row = replicated.row_of(lone, samples, {"stream": 10, "rabbitmq": 5}, gauges)
    assert row["sides"]["rabbitmq"] == {
        "median": 1_000.0, "messages": 5, "p99": 500.0, "ratio": [2.0, 2.0, 2.0]
    }  # fmt: skip
    page = replicated.markdown({"cores": 2}, [row])
    line = page.splitlines()[-1]
    assert line.count("|") == page.splitlines()[-2].count("|"), "a cell for each heading"
    assert "| 500 (p99 400) | - | 1,000 (p99 500); 2 - 2 - 2 x | - |" in line
