"""A process that has ended, and that nobody has waited for yet, keeps its exit code when it is signalled."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from minibroker.worker import signalling


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_that_comes_too_late_takes_no_exit_code(number: signal.Signals) -> None:
    process = subprocess.Popen(["sh", "-c", "exit 71"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays to be waited for
    signalling.send(process, number)
    assert os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == 71
    process.returncode = 71
    signalling.send(process, number)
