"""`minibroker export` and `minibroker import`: what is carried, what is not, and where it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from typing_commands import CLEAN, output, refusal, typed, typed_at

import minibroker
from minibroker.contract.bodies import Encoded
from minibrokerd.cli.carrying import as_fields, from_line, from_map, line, packed
from minibrokerd.process import exits
from support.broker import COMMAND, BrokerServer
from support.processes import lasts

BODIES: list[Any] = [
    b"text", b"\xff\x00", b"", "text", "", None, True, 1, 1.0, -(2**63), 2**64 - 1, float("inf"), float("nan"),
    0.1, [1, [b"\xfe", "x"]], {"a": {"b": [None]}}, {"bin": b"x"}, "\ud7ff\u0000\u2028",
    Encoded(b"\xc4\x01x", 1), Encoded(b"\xd0\x01", 1), Encoded(b"\x81\x01\x02", 1), Encoded(b"\xc1", 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerServer]:
    """One broker for all tests of this file: each has queues of its own."""
    directory = tmp_path_factory.mktemp("carrying") / "data"
    server = BrokerServer(directory, "--segment-bytes", str(1024 * 1024))
    yield server
    server.close()


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    """The name of a queue that no other test has."""
    return f"of-{hash(request.node.name):x}"


async def _publish(url: str, queue: str, bodies: list[Any], **more: Any) -> None:
    async with minibroker.connect(url) as broker:
        for body in bodies:
            await broker.queue(queue).publish(body, **more)


async def _publish_after(url: str, queue: str) -> None:
    async with minibroker.connect(url) as broker:
        confirm = await broker.queue(queue).publish(b"first")
        await broker.queue(queue).publish(b"then", after=[confirm.id])


async def _purge(url: str, queue: str) -> None:
    async with minibroker.connect(url) as broker:
        await broker.queue(queue).purge()


async def _reject(url: str, queue: str) -> None:
    async with minibroker.connect(url) as broker:
        await broker.queue(queue).publish(b"x")
        (message,) = await broker.queue(queue).receive()
        await message.reject("no")


async def _look(url: str, queue: str) -> list[minibroker.Peeked]:
    async with minibroker.connect(url) as broker:
        return await broker.queue(queue).peek(1_000)


def contents(messages: list[minibroker.Peeked]) -> list[tuple[object, ...]]:
    """Return what an import must carry over, but for the delay."""
    names = ("encoding", "key", "max_attempts", "lease_ms", "priority", "state")
    return [
        (each.raw, each.raw_headers, *(each.info.get(name) for name in names)) for each in messages
    ]


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_every_body_header_key_delay_and_term_is_carried(
    form: str, server: BrokerServer, queue: str, tmp_path: Path
) -> None:
    url, file, to = server.url, tmp_path / "messages", f"{queue}-to"
    asyncio.run(_publish(url, queue, BODIES))
    asyncio.run(_publish(url, queue, ["x"], headers={"a": b"\xff", "b": [1]}, key="k"))
    asyncio.run(
        _publish(
            url,
            queue,
            ["y"],
            headers={"a": "b"},
            delay=3_600,
            max_attempts=9,
            lease=77,
            priority=4,
            ttl=9_000,
        )
    )
    typed_at(server, "export", queue, "--out", str(file), "--format", form)
    output(server, "import", to, str(file), "--format", form)
    before, after = asyncio.run(_look(url, queue)), asyncio.run(_look(url, to))
    assert contents(after) == contents(before)
    assert len(after) == len(BODIES) + 2
    for name in ("ready_unix_ms", "expires_unix_ms"):
        assert abs(after[-1].info[name] - before[-1].info[name]) < 1_000, name


def test_a_file_is_for_its_owner_unless_it_was_there(
    server: BrokerServer, queue: str, tmp_path: Path
) -> None:
    """Whatever the umask, and what one that was killed has left there."""
    file = tmp_path / "messages"
    asyncio.run(_publish(server.url, queue, ["secret"]))
    (tmp_path / "messages.tmp").touch(0o666)
    before = os.umask(0)
    try:
        typed_at(server, "export", queue, "--out", str(file))
        assert file.stat().st_mode & 0o777 == 0o600
        file.chmod(0o640)
        typed_at(server, "export", queue, "--out", str(file))
        assert file.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)
    assert b"secret" in file.read_bytes()


def test_a_line_says_what_it_is_for_whoever_reads_it(server: BrokerServer, queue: str) -> None:
    asyncio.run(_publish(server.url, queue, [{"n": 1}], headers={"a": "b"}, key="k"))
    (text,) = output(server, "export", queue)
    found = json.loads(text)
    assert found.pop("published_unix_ms")
    assert found == {
        "id": found["id"], "state": "ready", "encoding": "msgpack", "body": {"n": 1},
        "headers": {"a": "b"}, "key": "k",
    }  # fmt: skip


def test_what_was_failed_is_told_and_begins_anew(
    server: BrokerServer, queue: str, tmp_path: Path
) -> None:
    file = tmp_path / "dead"
    asyncio.run(_reject(server.url, queue))
    typed_at(server, "export", f"{queue}.dlq", "--out", str(file))
    assert json.loads(file.read_bytes())["history"][0]["cause"] == "rejected"
    done = typed_at(server, "import", queue, str(file))
    assert "imported 1 message for" in done.stdout
    assert "1 had attempts or a history" in done.stderr
    assert asyncio.run(_look(server.url, queue))[0].history == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"x", "not JSON"),
        (b"[1]", "no JSON object"),
        (b"{}", "neither"),
        (b'{"body": 1, "body_base64": ""}', "and `body_base64`"),
        (b'{"body": 1, "encoding": "bytes"}', "no text"),
        (b'{"body": 1, "encoding": "json"}', "bytes or msgpack"),
        (b'{"body_base64": "?"}', "no base64"),
        (b'{"body_base64": 1}', "no base64"),
        (b'{"body": 1, "key": 2}', "`key`"),
        (b'{"body": 1, "delay_ms": 1.5}', "`delay_ms`"),
        (b'{"body": 1, "delay_ms": true}', "`delay_ms`"),
        (b'{"body": 1, "headers": [1]}', "headers"),
        (b'{"body": 1, "headers_base64": "wQ=="}', "headers"),
        (b'{"body": 36893488147419103232}', "64"),
        (b'{"body": "\\ud800"}', "surrogate"),
    ],
)
def test_a_line_that_is_none_is_refused(text: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_line(text)


@pytest.mark.parametrize("fields", [1, {}, {"body": "x"}, {"body": b"", "encoding": 2}])
def test_a_map_that_is_none_is_refused(fields: object) -> None:
    with pytest.raises(ValueError, match=r"map|body|encoding"):
        from_map(fields)


def test_both_forms_say_the_same() -> None:
    info = {"origin": 1, "sequence": 2, "state": "READY", "key": "", "encoding": 1}
    fields = as_fields(minibroker.Peeked(info, b"", b"\xa1x"))
    one, other = from_line(line(fields)), from_map(msgpack.unpackb(packed(fields)))
    assert (one.body, other.body) == ("x", Encoded(b"\xa1x", 1))


def test_a_wrong_line_ends_it_behind_those_before_and_skip_goes_on(
    server: BrokerServer,
    queue: str,
) -> None:
    text = '{"body": 1}\n\n{"body": 2, "delay": 3}\n{"boddy": 3}\n{"body": 4}\n'
    done = typed_at(server, "import", queue, stdin=text)
    assert done.returncode == exits.USAGE
    assert "message 4 of the input is none" in done.stderr
    assert "'delay' (1 time)" in done.stderr
    assert f"imported 2 messages for {queue}, up to 3 of the input" in done.stdout
    output(server, "import", queue, "--skip", "4", stdin=text)
    assert [each.body for each in asyncio.run(_look(server.url, queue))] == [1, 2, 4]


@pytest.mark.parametrize(
    ("waiting", "bodies", "says"),
    [
        ("run", [b"first", b"then"], "1 had waited for others, and wait for nobody now"),
        ("skip", [b"first"], "1 had waited for others, and were left out"),
    ],
)
def test_what_waited_for_others_is_imported_only_as_it_is_asked(
    server: BrokerServer, queue: str, tmp_path: Path, waiting: str, bodies: list[bytes], says: str
) -> None:
    """A new one would run at once, before what it comes after: a callback of a batch that is not done."""
    path = tmp_path / "messages"
    asyncio.run(_publish_after(server.url, queue))
    told = typed_at(server, "export", queue, "--out", str(path)).stderr
    assert "1 waiting for others" in told
    refused = typed_at(server, "import", f"{queue}-to", str(path))
    assert refused.returncode == exits.USAGE
    assert "message 2 of the input waited for others (1 of 1: " in refused.stderr
    assert "--waiting run" in refused.stderr
    more = ("--skip", "1") if waiting == "run" else ()
    command = ("import", f"{queue}-to", str(path), "--waiting", waiting, *more)
    checked = typed("import", f"{queue}-to", str(path), "--waiting", waiting, "--check")
    assert says in checked.stderr
    if waiting == "skip":
        asyncio.run(_purge(server.url, f"{queue}-to"))
    assert says in typed_at(server, *command).stderr
    there = asyncio.run(_look(server.url, f"{queue}-to"))
    assert sorted(each.body for each in there) == sorted(bodies)


def test_check_publishes_nothing_and_needs_no_server() -> None:
    done = typed("import", "q", "--check", stdin='{"body": 1}\n{"body": 2}')
    assert done.stdout == "checked 2 messages for q, up to 2 of the input\n"


def test_half_a_map_is_told(server: BrokerServer, queue: str, tmp_path: Path) -> None:
    file = tmp_path / "cut"
    file.write_bytes(msgpack.packb({"body": b"1"}) + msgpack.packb({"body": b"2"})[:-1])
    said = typed_at(server, "import", queue, str(file), "--format", "msgpack")
    assert said.returncode == exits.USAGE
    assert "in the middle of message 2" in said.stderr
    assert "imported 1" in said.stdout


def test_an_export_takes_nothing_unless_it_is_asked(
    server: BrokerServer, queue: str, tmp_path: Path
) -> None:
    asyncio.run(_publish(server.url, queue, [b"a", b"b", b"c"]))
    asyncio.run(_publish(server.url, queue, [b"later"], delay=3_600))
    assert len(output(server, "export", queue)) == 4
    file = tmp_path / "taken"
    said = typed_at(server, "export", queue, "--take", "--count", "2", "--out", str(file))
    assert "no longer there" in said.stderr
    assert [json.loads(text)["body"] for text in file.read_text().splitlines()] == ["a", "b"]
    refusal(server, exits.USAGE, "export", queue, "--take", "--out", str(file))
    assert [json.loads(text)["body"] for text in output(server, "export", queue)] == [
        "c",
        "later",
    ]


def test_a_reader_that_leaves_costs_no_message(server: BrokerServer, queue: str) -> None:
    output(server, "publish", queue, stdin="".join(f"{n} {'x' * 1_000}\n" for n in range(1_500)))
    words = f"{' '.join(COMMAND)} export {queue} --take --url {server.url} | head -n 700"
    read = subprocess.run(
        ["bash", "-c", words], capture_output=True, text=True, env=CLEAN, timeout=30, check=True
    )
    got = {json.loads(text)["body"] for text in read.stdout.splitlines()}
    left = {each.raw.decode() for each in _all(server.url, queue)}
    assert len(got) == 700
    assert len(got | left) == 1_500


def _all(url: str, queue: str) -> list[minibroker.Peeked]:
    async def look() -> list[minibroker.Peeked]:
        found, after = list[minibroker.Peeked](), b""
        async with minibroker.connect(url) as broker:
            while True:
                page = await broker.queue(queue).peek(1_000, after=after)
                found += page
                after = page.next
                if not after:
                    return found

    return asyncio.run(look())


def test_an_import_that_is_killed_goes_on_where_it_was(
    server: BrokerServer, queue: str, tmp_path: Path
) -> None:
    """Each is there; at the most those of one batch are there twice, and which is said."""
    file, journal = tmp_path / "in", tmp_path / "journal"
    count = 5_000
    file.write_text("".join(f'{{"body": {n}}}\n' for n in range(count)))
    words = ["import", queue, str(file), "--progress", str(journal), "--url", server.url]
    process = subprocess.Popen([*COMMAND, *words], env=CLEAN)
    while not journal.exists() or json.loads(journal.read_bytes())["done"] < 1_000:
        assert lasts(process, 0.01)
    process.kill()
    process.wait()
    was = json.loads(journal.read_bytes())
    done = typed(*words)
    assert done.returncode == exits.DONE, done.stderr
    assert ("may be there twice" in done.stderr) is (was["under_way"] > was["done"])
    found = [each.body for each in _all(server.url, queue)]
    assert set(found) == set(range(count))
    assert len(found) - count <= was["under_way"] - was["done"] <= 500
    again = typed(*words)
    assert "imported 0 messages" in again.stdout
    other = typed("import", "other", *words[2:])
    assert (other.returncode, "another import" in other.stderr) == (exits.USAGE, True)


@pytest.mark.parametrize(
    "words",
    [("export", "q", "--out"), ("import", "q", "/dev/null", "--progress"), ("worker", "app:app", "--health-file")],
)  # fmt: skip
def test_what_is_no_plain_file_is_not_replaced_by_one(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    """A file that is renamed to its place would take that of a pipe, or of a device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = typed(*words, str(pipe))
    assert (done.returncode, pipe.is_fifo()) == (exits.USAGE, True)
    assert "is no plain file" in done.stderr


def test_a_link_stays_and_what_it_leads_to_is_written(
    server: BrokerServer, queue: str, tmp_path: Path
) -> None:
    asyncio.run(_publish(server.url, queue, [b"a"]))
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")
    typed_at(server, "export", queue, "--out", str(link))
    assert (link.is_symlink(), len((tmp_path / "file").read_text().splitlines())) == (True, 1)
