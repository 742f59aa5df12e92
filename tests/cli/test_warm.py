"""What tests fork off a warm process (support/warm.py) is what a user starts: each is tried both ways."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from typing_commands import CLEAN

from minibrokerd.process import exits
from support import warm
from support.processes import DEADLINE_S, Process, look_until
from support.warm import COMMAND, Warm

LOOKING = Path(__file__).with_name("looking_around.py")


def both(tmp_path: Path, environment: Mapping[str, str], *, leads: bool) -> list[dict[str, object]]:
    """Return what a process finds itself in that is forked, and one that is started."""
    found = []
    for name in ("forked", "started"):
        log = tmp_path / name
        with open(os.devnull) as nothing, log.open("wb") as output:
            process: Process
            if name == "forked":
                process = Warm(
                    ["one", "two words"],
                    environment,
                    stdin=nothing.fileno(),
                    stdout=output.fileno(),
                    stderr=output.fileno(),
                    file=LOOKING,
                    folder=tmp_path,
                    start_new_session=leads,
                )
            else:
                process = subprocess.Popen(
                    [sys.executable, str(LOOKING), "one", "two words"],
                    env=environment,
                    stdin=nothing,
                    stdout=output,
                    stderr=output,
                    cwd=tmp_path,
                    start_new_session=leads,
                )
        assert process.wait(DEADLINE_S) == 0, log.read_text()
        found.append(json.loads(log.read_text()))
    return found


@pytest.mark.parametrize("leads", [True, False])
def test_it_finds_the_same_around_it(tmp_path: Path, leads: bool) -> None:
    """Arguments, variables, folder, streams, open files, signals, limits and flags."""
    forked, started = both(tmp_path, {**os.environ, "SOME": "thing"}, leads=leads)
    assert forked == started


def test_variables_of_python_that_the_tests_use_hold(tmp_path: Path) -> None:
    """Of the others, a process is started."""
    ours = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    forked, started = both(tmp_path, {**os.environ, **ours}, leads=False)
    differs = ("flags",)  # which nobody of us reads
    assert {key: value for key, value in forked.items() if key not in differs} == {
        key: value for key, value in started.items() if key not in differs
    }
    assert not warm.fits(["ping"], {**os.environ, "PYTHONIOENCODING": "ascii"})


@pytest.mark.parametrize(
    "words",
    [
        "--version",
        "exits --json",
        "nope",
        "queue show",
        "ping --url minibroker://127.0.0.1:1",
        "purge q --url minibroker://127.0.0.1:1",
        "log check --data-dir /no/such/place",
        "serve --port 0 --no-http --data-dir /dev/null/x",
    ],
)
def test_a_command_prints_and_ends_the_same(words: str) -> None:
    """Each stream, and the exit code."""
    forked = warm.forked(words.split(), CLEAN, "y\n", DEADLINE_S)
    started = subprocess.run(
        [*COMMAND, *words.split()],
        input="y\n",
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env=CLEAN,
    )
    ends = [
        (done.returncode, done.stdout, [line[24:] for line in done.stderr.splitlines()])
        for done in (forked, started)
    ]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, exits.INTERRUPTED),
        (signal.SIGTERM, -signal.SIGTERM),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_signals_end_it_as_any_other(tmp_path: Path, number: int, code: int) -> None:
    """By its own number; how it ended is known to every thread that waits."""
    log = tmp_path / "log"
    wait = ["ping", "--wait", "1h", "--url", "minibroker://127.0.0.1:1"]
    process = warm.start_logged(wait, CLEAN, log)
    assert isinstance(process, Warm)
    look_until(lambda: "waiting" in log.read_text(), process, "it waits")
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(DEADLINE_S) == process.poll() == process.returncode == code
    process.send_signal(number)  # of which nobody hears
