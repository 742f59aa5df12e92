"""`minibroker check` as a monitoring system runs it: one line, perfdata, and an exit code of its plug-in API."""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from commands_here import here, look
from http_broker import HttpBroker, StartHttp

import minibroker
from minibrokerd.monitoring.checks import CHECKS
from minibrokerd.process.exits import CHECK_EXITS
from support.processes import look_until

OK, WARNING, CRITICAL, UNKNOWN = (row.code for row in CHECK_EXITS)
# What the guidelines of the monitoring plug-ins allow: 'label'=value[UOM];[warn];[crit];[min];[max]
NUMBER = r"-?\d+(?:\.\d+)?(?:e-\d+)?"
PERFDATA = re.compile(rf"\w+={NUMBER}(?:s|%)?;(?:{NUMBER}:?)?;(?:{NUMBER}:?)?;0")
UNASKED = (
    "disk-free",
    "consumers-gone",
    "sync-p99",
)  # as the disk of this machine is, or not what is tested
CALM = tuple(word for name in UNASKED for word in (f"--{name}", "off"))


def checked(broker: HttpBroker, *words: str) -> tuple[int, str]:
    """Return exit code and line."""
    done = look(broker, "check", *words)
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)
    return done.returncode, done.stdout.rstrip()


async def test_a_line_with_perfdata_and_a_code(http_broker: HttpBroker) -> None:
    """OK, then a warning, then critical, as the bounds say, in units."""
    code, line = checked(http_broker, *CALM)
    text, _, perfdata = line.partition(" | ")
    asked = f"{http_broker.url.removeprefix('http://')} ({minibroker.__version__})"
    assert (code, text.startswith(f"MINIBROKER OK - {asked}: ")) == (OK, True), line
    assert all(PERFDATA.fullmatch(each) for each in perfdata.split()), perfdata
    labels = [each.partition("=")[0] for each in perfdata.split()]
    assert labels == [row.label for row in CHECKS.values() if row.name not in UNASKED]
    async with minibroker.connect(http_broker.server.url) as connection:
        await connection.queue("mail").publish("x")
    code, line = checked(http_broker, *CALM, "--oldest-ready", "1ms,1h")
    assert (code, f"WARNING - {asked}: oldest-ready" in line, "(mail " in line) == (
        WARNING,
        True,
        True,
    )
    code, line = checked(http_broker, *CALM, "--oldest-ready", "1ms", "--memory", ",0.001%")
    assert code == CRITICAL
    assert re.search(
        r"CRITICAL - \S+ \(\S+\): memory \S+%; oldest-ready \S+ \(mail \S+\) \[WARNING\] \|", line
    )
    assert checked(http_broker, *CALM, "--oldest-ready", "1ms", "--skip", "ma*")[0] == OK


async def test_dead_letters_grow_within_a_window(http_broker: HttpBroker) -> None:
    """The broker remembers it: no file on the side of who asks. A redrive does not hide that they died."""
    async with minibroker.connect(http_broker.server.url) as connection:
        mail = connection.queue("mail")
        await mail.publish("x")
        (message,) = await mail.receive()
        await message.reject(ValueError("no"), confirmed=True)
        look_until(lambda: _dead(http_broker) == 1, http_broker.server.process, "it is seen")
        assert checked(http_broker, *CALM)[0] == WARNING
        await connection.queue("mail.dlq").redrive()
        (message,) = await mail.receive()
        await message.ack(confirmed=True)
    done = look(http_broker, "check", "--json", *CALM, "--dead-letters", ",1")
    said = json.loads(done.stdout)
    found = said["checks"]["dead-letters"]
    assert (done.returncode, said["level"], found["level"]) == (CRITICAL, "critical", "critical")
    assert (found["value"], found["queues"]) == (1, {"mail": 1})
    assert 0 < said["now_unix_ms"] - found["since_unix_ms"] < 60_000
    assert checked(http_broker, *CALM, "--queue", "mail", "--dead-letters", "2")[0] == OK


async def test_a_queue_whose_consumers_have_gone(http_broker: HttpBroker) -> None:
    """Since its last one left, while something is ready; one that comes back ends it."""
    async with minibroker.connect(http_broker.server.url) as connection:
        await connection.queue("mail").publish("x")
        look_until(
            lambda: _reading(http_broker, "consumers-gone")["value"] > 0,
            http_broker.server.process,
            "it is seen",
        )
        flags = ("--disk-free", "off", "--consumers-gone", "1ms")
        code, line = checked(http_broker, *flags)
        assert (code, "consumers-gone" in line, "(mail " in line) == (WARNING, True, True)
        await connection.queue("mail").publish("y")
        waits = connection.queue("mail").consume(prefetch=1)
        async with waits:
            look_until(
                lambda: _reading(http_broker, "consumers-gone")["value"] == 0,
                http_broker.server.process,
                "it is over",
            )


def test_what_is_not_known_is_not_critical(http_broker: HttpBroker) -> None:
    """Wrong flags, bounds, variables, names: 3. A broker that is not there: 2."""
    for words in (
        ("--nope",),
        ("--memory", "95%,80%"),
        ("--window", "1s"),
        ("--queue", "nope"),
        ("--queue", "a,b"),
        ("surplus",),
    ):
        code, line = checked(http_broker, *words)
        assert (code, line.startswith("MINIBROKER UNKNOWN - ")) == (UNKNOWN, True), words
    http_broker.server.process.kill()
    http_broker.server.process.wait()
    code, line = checked(http_broker)
    assert (code, "CRITICAL - no HTTP port" in line, "|" in line) == (CRITICAL, True, False)


def test_a_wrong_token_is_unknown_and_the_json_says_so(start_http: StartHttp) -> None:
    """The state of the broker is not known to somebody whom it does not talk to."""
    broker = start_http("--http", "0.0.0.0:0", token="a token of the right length")
    done = look(broker, "check", "--json")
    said: Any = json.loads(done.stdout)
    assert (done.returncode, said["level"], "token" in said["text"]) == (UNKNOWN, "unknown", True)


def test_a_file_with_more_than_a_token_is_unknown_and_not_shown(
    http_broker: HttpBroker, tmp_path: Path
) -> None:
    """As it comes of `token add NAME > FILE 2>&1`."""
    path = tmp_path / "token"
    path.write_text("mbt_secret\nIt is shown this once\n")
    env = {
        "MINIBROKER_HTTP": http_broker.url.removeprefix("http://"),
        "MINIBROKER_HTTP_TOKEN_FILE": str(path),
    }
    done = here(env, "check")
    assert (done.returncode, "holds no token" in done.stdout) == (UNKNOWN, True)
    assert "mbt_secret" not in done.said


def test_what_is_no_broker_is_unknown(http_broker: HttpBroker) -> None:
    """It answers everything, with JSON of its own."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        code, line = checked(http_broker, "--http", f"127.0.0.1:{server.server_port}")
    assert (code, "is no broker" in line) == (UNKNOWN, True)


def test_the_timeout_is_for_the_whole_call(http_broker: HttpBroker) -> None:
    """Who sends a byte now and then is always in time for the next read."""
    ended = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # the command has gone
                while not ended.wait(0.05):
                    self.wfile.write(b" ")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Slow) as server:
        serving = threading.Thread(target=server.handle_request, daemon=True)
        serving.start()
        code, line = checked(
            http_broker, "--timeout", "1s", "--http", f"127.0.0.1:{server.server_port}"
        )
        ended.set()
        serving.join()
    assert (code, "no whole answer within 1 s" in line) == (CRITICAL, True), line


def _dead(broker: HttpBroker) -> float:
    return float(_reading(broker, "dead-letters")["value"])


def _reading(broker: HttpBroker, name: str) -> Any:
    readings = broker.client.get("/api/v1/readings").json()["readings"]
    return next(each for each in readings if each["check"] == name)
