"""The pytest plugin in runs of its own: every runner and loop, quiet, and nothing if it is not used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEADLINE_S = 100.0
WORK = """
    queue = minibroker.queue("mail")
    await queue.publish(b"x", delay=3600)
    await minibroker_clock.advance(3600)
    (message,) = await queue.receive()
    await message.ack(confirmed=True)
    await queue.publish(b"left behind")
    await queue.receive()
"""
PLAIN = f"async def test_one(minibroker, minibroker_clock):{WORK}\n"
MARKED = "import pytest\n@pytest.mark.{mark}\n" + PLAIN
UVLOOP = """
import asyncio, warnings, pytest, uvloop
@pytest.fixture(scope="session")
def event_loop_policy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return uvloop.EventLoopPolicy()
"""
ON_UVLOOP = """
import asyncio
async def test_loop():
    assert "uvloop" in type(asyncio.get_running_loop()).__module__
"""
ANYIO_BACKENDS = """
import pytest
@pytest.fixture(params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})])
def anyio_backend(request):
    return request.param
"""
RUNS = {
    "pytest-asyncio, auto": ({"test_it.py": PLAIN}, ["-p", "no:anyio", "-o", "asyncio_mode=auto"]),
    "pytest-asyncio, strict, anyio beside it": ({"test_it.py": MARKED.format(mark="asyncio")}, []),
    "pytest-asyncio on uvloop": (
        {"test_it.py": PLAIN + ON_UVLOOP, "conftest.py": UVLOOP},
        ["-o", "asyncio_mode=auto", "-W", "ignore::DeprecationWarning"],
    ),
    "anyio alone, asyncio and uvloop": (
        {"test_it.py": MARKED.format(mark="anyio"), "conftest.py": ANYIO_BACKENDS},
        ["-p", "no:asyncio"],
    ),
    "anyio, pytest-asyncio beside it": (
        {"test_it.py": MARKED.format(mark="anyio"), "conftest.py": ANYIO_BACKENDS},
        [],
    ),
}


def run(directory: Path, files: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on these files, with warnings as errors, in a fresh interpreter."""
    for name, text in files.items():
        (directory / name).write_text(text)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q"]
    for plugin in ("cacheprovider", "hypothesispytest", "timeout"):  # which only take time here
        command += ["-p", f"no:{plugin}"]
    command += ["--strict-config", "--strict-markers", "-W", "error", *flags]
    if "no:asyncio" not in flags:  # which warns of what it will do when it is not told
        command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    variables = {name: os.environ[name] for name in os.environ if not name.startswith("PYTEST_")}
    return subprocess.run(
        command,
        cwd=directory,
        env=variables,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.mark.parametrize("name", RUNS)
def test_it_works_under_every_runner_and_says_nothing(name: str, tmp_path: Path) -> None:
    files, flags = RUNS[name]
    done = run(tmp_path, files, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert done.stderr == ""
    assert "warning" not in done.stdout.lower()


def test_a_run_without_it_loads_nothing_of_it(tmp_path: Path) -> None:
    text = """
import sys
def test_nothing():
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert "pytest_minibroker" in loaded
    assert not loaded & {"minibroker", "minibrokerd", "structlog", "msgspec", "uvloop"}
"""
    done = run(tmp_path, {"test_it.py": text})
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_loop_of_a_wider_scope_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """A broker that was first used in the loop of a module cannot serve a test in a loop of its own."""
    text = """
import pytest, pytest_asyncio
from minibroker.testing import MemoryBroker

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker():
    with MemoryBroker() as broker:
        await broker.queue("mail").publish(b"x")
        yield broker

@pytest.mark.asyncio(loop_scope="module")
async def test_in_its_loop(broker):
    (message,) = await broker.queue("mail").receive()

@pytest.mark.asyncio
async def test_in_another_loop(broker):
    await broker.queue("mail").receive()
"""
    done = run(tmp_path, {"test_it.py": text}, "-p", "no:anyio")
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "first used in another event loop" in done.stdout
    assert "loop_scope" in done.stdout


def test_a_fixture_of_a_wider_scope_is_refused_by_pytest(tmp_path: Path) -> None:
    text = """
import pytest
@pytest.fixture(scope="session")
def queue(minibroker):
    return minibroker
def test_it(queue):
    pass
"""
    done = run(tmp_path, {"test_it.py": text})
    assert done.returncode == 1
    assert "ScopeMismatch" in done.stdout


def test_without_a_loop_it_says_so(tmp_path: Path) -> None:
    text = """
import pytest
def test_it(minibroker):
    assert minibroker.url.startswith("memory://")
    with pytest.raises(RuntimeError, match="in an event loop: write the test as async def"):
        minibroker.queue("mail")
"""
    done = run(tmp_path, {"test_it.py": text})
    assert done.returncode == 0, done.stdout + done.stderr


def test_code_under_test_finds_the_broker_by_itself(tmp_path: Path) -> None:
    """The application connects to nothing in particular, and each test has a broker of its own."""
    text = """
import minibroker as client, os
async def signup(name):
    async with client.connect() as broker:
        await broker.queue("mail").publish(name)
async def test_one(minibroker):
    await signup("bob")
    (message,) = await minibroker.queue("mail").receive()
    assert message.body == "bob"
async def test_other(minibroker):
    assert await minibroker.queue("mail").receive() == []
def test_after():
    assert "MINIBROKER_URL" not in os.environ
"""
    done = run(tmp_path, {"test_it.py": text}, "-o", "asyncio_mode=auto")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_serves_the_whole_run_and_ends_with_it(tmp_path: Path) -> None:
    text = """
import minibroker as client, os
async def test_one(minibroker_server):
    async with client.connect(minibroker_server.url) as broker:
        await broker.queue("mail").publish("kept")
        minibroker_server.kill()
        minibroker_server.restart()
        (message,) = await broker.queue("mail").receive(wait=10)
        assert message.body == "kept"
        await message.ack(confirmed=True)
async def test_other(minibroker_server):
    size = sum(file.stat().st_size for file in minibroker_server.data_dir.iterdir())
    assert size < 25_000_000
    print("pid", minibroker_server.pid, "pid")
    async with client.connect(minibroker_server.url) as broker:
        assert "mail" in (await broker.stats())["queues"]
"""
    done = run(tmp_path, {"test_it.py": text}, "-o", "asyncio_mode=auto", "-s")
    assert done.returncode == 0, done.stdout + done.stderr
    pid = int(done.stdout.split("pid")[1])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
