"""The log level of a broker that runs: changed over HTTP with who, and back as the configuration says."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from http_broker import TOKEN, HttpBroker, serving

from minibroker.sync import connect
from minibrokerd.process.logs import LEVELS
from support.processes import look_until

PATH = "/api/v1/log-level"


def put(broker: HttpBroker, body: Any, status: int = 200) -> Any:
    """Ask for a level as the operator."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = broker.client.put(PATH, json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def logs_debug(broker: HttpBroker) -> bool:
    """Whether a login stands in the log; everything behind it in the log has been read then."""
    before = broker.server.output.count("session_opened")
    with connect(broker.server.url) as client:
        client.queue("q").set()
    marks = broker.server.output.count("http_change")
    headers = {"authorization": f"Bearer {TOKEN}"}
    broker.client.post("/api/v1/queues/q/purge", headers=headers)
    look_until(
        lambda: broker.server.output.count("http_change") > marks, broker.server.process, "a mark"
    )
    return broker.server.output.count("session_opened") > before


def test_a_level_holds_until_the_configuration_is_read_again(tmp_path: Path) -> None:
    """Wrong ones and other fields change nothing; a hang-up leads back, and so does null."""
    file = tmp_path / "minibroker.toml"
    file.write_text('log-level = "info"\n')
    with serving(tmp_path / "data", "--config", str(file)) as broker:
        info = {"level": "info", "configured": "info"}
        assert broker.client.get(PATH).json() == info
        assert not logs_debug(broker)
        assert put(broker, {"level": "debug"}) == {"level": "debug", "configured": "info"}
        assert broker.client.get(PATH).json() == {"level": "debug", "configured": "info"}
        assert logs_debug(broker)
        more = {"level": "info", "logger": "x"}
        wrongs: list[Any] = [{"level": "trace"}, {"level": 1}, {}, more, []]
        assert "one of debug, info" in put(broker, {"level": ""}, 400)["text"]
        for wrong in wrongs:
            assert put(broker, wrong, 400)["code"] == "bad_value"
        assert broker.client.put(PATH, json={"level": "info"}).status_code == 401
        assert logs_debug(broker)
        broker.server.process.send_signal(signal.SIGHUP)
        look_until(
            lambda: broker.client.get(PATH).json() == info, broker.server.process, "the reload"
        )
        assert not logs_debug(broker)
        put(broker, {"level": "debug"})
        assert put(broker, {"level": None}) == info


def test_who_makes_the_log_quiet_stands_in_it_and_who_makes_it_loud_too(tmp_path: Path) -> None:
    """Each change is an event with who; it is said at the level of the two that says more."""
    with serving(tmp_path / "data") as broker:
        for level in LEVELS:
            assert put(broker, {"level": level})["level"] == level
        put(broker, {"level": "info"})
        words = (
            "action=log_level who=operator",
            "from_level=info to_level=debug",
            "from_level=debug to_level=info",
            "from_level=info to_level=warning",
            "from_level=error to_level=info",
        )
        look_until(
            lambda: all(each in broker.server.output for each in words),
            broker.server.process,
            "all of them",
        )
