"""A log of an old release is found whole: not its messages alone, but all that broker and clients go on with.

tests/vectors/ has two in which every record type occurs, and what was found in them then: settings, states,
histories, attempts, delays, leases, keys, terms, outcomes of frames, sessions, and the numbers that are not given
again.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import lived_log
import pytest
from lived_story import live
from make_vectors import VECTORS

from minibroker.contract.settings import default_settings
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.recovery import Recovery
from minibrokerd.log.seam import Batch
from support.broker import StartBroker
from support.raw_client import RawClient

OLD = sorted(path.name.removesuffix(".found.json") for path in VECTORS.glob("*.found.json"))


def copied(name: str, tmp_path: Path) -> Path:
    """Return a copy of an old data directory, private as a server makes it."""
    path = Path(shutil.copytree(VECTORS / name, tmp_path / name))
    path.chmod(0o700)
    return path


def said(name: str) -> dict[str, Any]:
    """Return what was found in an old directory, and what its clients know.

    A setting that came since has its default.
    """
    content: dict[str, Any] = json.loads((VECTORS / f"{name}.found.json").read_text())
    for queue in content["found"]["queues"].values():
        queue["settings"]["settings"] = default_settings() | queue["settings"]["settings"]
    return content


def as_json(value: object) -> Any:
    """Return a value as it comes back from a file."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("digests", [False, True], ids=["records", "indexes"])
@pytest.mark.parametrize("name", OLD)
def test_everything_is_found_as_it_was(name: str, digests: bool, tmp_path: Path) -> None:
    """Out of the records, and out of the side indexes that the old release left beside them."""
    path, then = copied(name, tmp_path), said(name)
    found = lived_log.Found(path, then["clients"], then["unix_ms"], digests=digests)
    now = as_json(found.everything())
    for part in then["found"]:  # one by one: a difference is found faster
        assert now[part] == then["found"][part], part
    assert now.keys() == then["found"].keys()


@pytest.mark.parametrize("name", OLD)
def test_what_is_there_says_all_that_can_be_said(name: str, tmp_path: Path) -> None:
    """Every type of record of that release, side indexes, and every state; so no rule of a start goes untried."""
    path, then = copied(name, tmp_path), said(name)
    recovery = Recovery(DataDirectory(path, FileOps()), FileOps())
    types = {
        record.type
        for batch in recovery.batches()
        if isinstance(batch, Batch)
        for record in batch.records
    }
    assert types >= set(range(2, 18))
    assert len([*path.glob("*.index")]) >= 8
    messages = [one for queue in then["found"]["queues"].values() for one in queue["messages"]]
    assert {one["state"] for one in messages} == {"READY", "DELAYED", "BEGUN"}
    causes = {past["cause"] for one in messages for past in one.get("history", ())}
    assert causes == {"failed", "rejected", "expired", "worker_lost"}
    for trait in ("history_dropped", "redriven", "dead", "key", "max_attempts"):
        assert any(one.get(trait) for one in messages), trait


@pytest.mark.parametrize("closed", [True, False])
def test_a_new_log_of_the_same_lives_is_found_the_same(closed: bool, tmp_path: Path) -> None:
    """What this release writes for the same calls comes to the same, record for record or not."""
    path, then = tmp_path / "new", said(f"lived-2-{'closed' if closed else 'torn'}")
    lived = live()
    asyncio.run(lived_log.write(path, lived, segment_bytes=4_096, closed=closed))
    known = {name: dict(one) for name, one in then["clients"].items()}
    for one in known.values():
        del one["secret"]  # of another key
    assert (as_json(lived.clients), lived.unix_ms) == (known, then["unix_ms"])
    found = lived_log.Found(path, lived.clients, lived.unix_ms, digests=True)
    assert as_json(found.everything()) == then["found"]


@pytest.mark.parametrize("name", OLD)
def test_a_server_starts_on_it_and_its_clients_come_back(
    name: str, tmp_path: Path, start_broker: StartBroker
) -> None:
    """With the secrets of their sessions, and what they had begun; the years since then have ended no lease."""
    path, then = copied(name, tmp_path), said(name)
    server = start_broker(data_dir=path)
    worker = then["clients"]["worker"]
    lost = then["found"]["clients"]["worker"]["lost"]
    with closing(RawClient(server.host, server.port)) as client:
        client.close()  # of the session that it began
        client.welcome |= {"session": worker["session"], "secret": bytes.fromhex(worker["secret"])}
        client.sequence = len(worker["frames"])
        client.resume([tuple(run) for run in worker["begun"]])
        assert (client.welcome["known"], client.welcome["lost"]) == (True, len(lost))
        begun = [{"run": run} for run in worker["begun"] if run not in lost]
        # Its reserve is not among the test data: what comes while that is made again waits for it.
        answer = client.answer(client.settle("ack", "work", *begun))
        assert (answer["op"], answer["results"]) == ("confirm", [{"lost": 0}]), answer
        stats = client.ask("stats")["value"]["queues"]
    assert stats.keys() == then["found"]["queues"].keys()
    assert (len(begun), stats["work"]["begun"]) == (2, 0)
