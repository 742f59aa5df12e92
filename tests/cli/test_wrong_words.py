"""Wrong words across the commands, as of somebody who does not know them yet."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from test_top import address_of
from typing_commands import typed

from minibrokerd.process import exits
from support.broker import BrokerServer

# What somebody types who does not know it yet: the words, the exit code, the code of the error, and what is said
# of what was tried, what happened, and what to do next.
STRANGERS: dict[str, tuple[int, str | None, tuple[str, ...]]] = {
    "queue show nope": (exits.REFUSED, "unknown_queue", ("'nope'", "check the spelling")),
    "export nope": (exits.REFUSED, "unknown_queue", ("'nope'", "check the spelling")),
    "resume nope": (exits.REFUSED, "unknown_queue", ("'nope'", "check the spelling")),
    "schedule show nope": (exits.REFUSED, "unknown_schedule", ("'nope'", "minibroker schedule list")),
    "schedule delete nope": (exits.REFUSED, "unknown_schedule", ("nope", "minibroker schedule list")),
    "exchange show nope": (exits.REFUSED, "unknown_exchange", ("'nope'", "minibroker exchange list")),
    "publish x --exchange nope": (exits.REFUSED, "unknown_exchange", ("'nope'", "minibroker exchange list")),
    "who 9-9": (exits.REFUSED, "unknown_message", ("9-9", "minibroker explain 9-9")),
    "result 9-9": (exits.REFUSED, "unknown_message", ("no message has had this id", "9-9")),
    "peek": (exits.USAGE, None, ("QUEUE",)),
    "message show emails 7": (exits.USAGE, None, ("'7' is no message id", "like 1-42")),
    "retime 1-0 soon": (exits.USAGE, None, ("'soon'", "2d")),
    "queue set emails lease_ms=soon": (exits.USAGE, None, ("'soon' is no duration", "250ms")),
    "queue set emails colour=1": (exits.USAGE, None, ("'colour'", "max_attempts")),
    "schedule set s": (exits.USAGE, None, ("'set'", "There are add,", "list")),
    "message edit": (exits.USAGE, None, ("'edit'", "There are", "show")),
    "schedule shew s": (exits.USAGE, None, ("Did you mean 'show'?",)),
    "purge emails": (exits.REFUSED, None, ("nothing was done", "--yes")),
    "ping --url 127.0.0.1:1": (exits.USAGE, None, ("127.0.0.1:1", "minibroker://host:7272")),
    "ping --url minibroker://HTTP": (exits.UNREACHABLE, "connection_lost", ("HTTP", "serve --port", "--url")),
    "connections --http CLIENTS": (exits.REFUSED, None, ("CLIENTS", "not how a broker answers", "--http")),
    "top --once --http 127.0.0.1:1": (exits.UNREACHABLE, None, ("127.0.0.1:1", "refused", "--http")),
    "top": (exits.USAGE, None, ("no terminal", "--once")),
    "token list --data-dir /no/such": (exits.NOT_WRITABLE, None, ("/no/such", "--data-dir")),
    "log stats --data-dir /no/such": (exits.NOT_WRITABLE, None, ("/no/such", "--data-dir")),
    "worker nope:app": (exits.USAGE, None, ("'nope'", "PYTHONPATH")),
}  # fmt: skip
NO_JSON = ("worker nope:app", "top")  # events instead, or one document after the other


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerServer]:
    """A broker with an HTTP port, for all of them: they do nothing."""
    env = {"MINIBROKER_NO_HTTP": "0"}
    started = BrokerServer(tmp_path_factory.mktemp("data"), "--http", "127.0.0.1:0", env=env)
    yield started
    started.close()


@pytest.mark.parametrize("words", STRANGERS)
def test_a_stranger_is_told_what_was_tried_and_what_to_do(server: BrokerServer, words: str) -> None:
    """For people, and as JSON: one object with its codes; nothing is a result, nothing is a traceback."""
    (code, error, says), ends_here = STRANGERS[words], words in NO_JSON
    near = {"HTTP": address_of(server), "CLIENTS": server.url.partition("//")[2]}
    for name, address in near.items():
        words = words.replace(f" {name}", f" {address}").replace(f"//{name}", f"//{address}")
    env = {"MINIBROKER_URL": server.url, "MINIBROKER_HTTP": near["HTTP"]}
    done = typed(*words.split(), env=env)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    text = " ".join(done.stderr.split())
    assert all(near.get(each, each) in text for each in says), text
    assert "Traceback" not in text
    if ends_here:
        return
    done = typed(*words.split(), "--json", env=env)
    said = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (done.returncode, said["code"], said["exit_code"]) == (code, error, code)
