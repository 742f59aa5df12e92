"""What a user gets: the wheel, in an empty environment, far from this checkout."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from support.broker import BrokerServer
from support.source import ROOT

IMPORT_S = 0.060
INSTALLED_S = (
    900  # a wheel is built, and installed with what it needs, before the first of these tests
)

ROUND_TRIP = """
import asyncio, sys
import minibroker

async def main():
    async with minibroker.connect(sys.argv[1]) as broker:
        queue = broker.queue("wheel")
        confirm = await queue.publish({"to": "bob"})
        assert confirm.durability == "sync", confirm
        async with queue.consume() as messages:
            async for message in messages:
                async with message.process():
                    print(minibroker.__file__, message.body["to"])
                break

asyncio.run(main())
"""

# Two processes write to one pipe: a line each is one write, which nothing comes between.
WORKER = """
import dataclasses
import os
import minibroker

app = minibroker.App()

@dataclasses.dataclass
class Mail:
    to: str

@app.handler("loop")
async def send(mail: Mail) -> None:
    os.write(1, f"loop {mail.to}\\n".encode())

@app.handler("process", executor="process")
def send_apart(mail: Mail) -> None:
    os.write(1, f"process {mail.to}\\n".encode())
"""

PLUGIN = """
import sys

def test_a_run_that_uses_none_of_the_fixtures_loads_nothing():
    assert "pytest_minibroker" in sys.modules
    assert "minibroker" not in sys.modules

def test_an_hour_passes(minibroker_sync):
    minibroker_sync.queue("mails").publish({"to": "bob"}, delay=3600)
    minibroker_sync.advance(3600)
    [message] = minibroker_sync.queue("mails").receive()
    assert message.body == {"to": "bob"}

def test_a_server(minibroker_server):
    import minibroker.sync
    with minibroker.sync.connect(minibroker_server.url) as broker:
        broker.ping()
"""

# In a process of its own: the least processor time of some imports, each in an interpreter that has nothing.
IMPORTS = """
import subprocess, sys
code = "import sys, time; a = time.process_time(); import {}; print(time.process_time() - a, *sys.modules)"
for name in sys.argv[1:]:
    runs = [subprocess.run([sys.executable, "-I", "-c", code.format(name)], capture_output=True, text=True).stdout
            for _ in range(7)]
    print(name, min(float(run.split()[0]) for run in runs), *runs[0].split()[1:])
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed and return what it printed."""
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and install it, and pytest, into an empty environment; return its folder of programs."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder / "dist", ROOT, cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    # An environment that has nothing is filled from outside.
    venv.create(folder / "environment", with_pip=False)
    programs = folder / "environment" / "bin"
    run(
        *pip,
        f"--python={programs / 'python'}",
        "install",
        "--no-compile",
        wheel,
        "pytest",
        cwd=folder,
    )
    return programs


@pytest.mark.timeout(INSTALLED_S)
def test_the_wheel_serves_and_carries_a_message(home: Path, tmp_path: Path) -> None:
    """Serve, publish, consume; and a worker whose handlers run in the loop and in a process."""
    server = BrokerServer(tmp_path / "data", command=(str(home / "minibroker"),))
    try:
        printed = run(home / "python", "-I", "-c", ROUND_TRIP, server.url, cwd=tmp_path)
        assert printed.startswith(str(home.parent))
        assert printed.split()[-1] == "bob"
        (tmp_path / "mailer.py").write_text(WORKER, "utf-8")
        url = ("--url", server.url)
        for queue in ("loop", "process"):
            body = f'{{"to": "{queue}@example.com"}}'
            run(home / "minibroker", "publish", queue, body, "--as", "json", *url, cwd=tmp_path)
        said = run(home / "minibroker", "worker", "mailer:app", "--burst", *url, cwd=tmp_path)
        assert "loop loop@example.com\n" in said
        assert "process process@example.com\n" in said
        assert server.stop() == 0
    finally:
        server.close()


@pytest.mark.timeout(INSTALLED_S)
def test_the_pytest_plugin_is_found(home: Path, tmp_path: Path) -> None:
    """By its entry point, with nothing configured."""
    (tmp_path / "test_it.py").write_text(PLUGIN, "utf-8")
    said = run(home / "python", "-m", "pytest", "-q", "test_it.py", cwd=tmp_path)
    assert "3 passed" in said


@pytest.mark.timeout(INSTALLED_S)
def test_importing_it_is_quick_and_loads_no_more_than_it_needs(home: Path, tmp_path: Path) -> None:
    """In processor time, so that other work of the machine does not count; the least of seven."""
    printed = run(home / "python", "-c", IMPORTS, "minibroker", "minibroker.sync", cwd=tmp_path)
    awaited, blocking = (line.split() for line in printed.splitlines())
    assert float(awaited[1]) <= IMPORT_S, f"import minibroker took {awaited[1]} s"
    assert not {"uvloop", "minibrokerd", "click", "structlog"} & set(awaited)
    assert not {"asyncio", "uvloop", "minibrokerd"} & set(blocking)
