#!/usr/bin/env bash
# pytest-timeout 2.4.0 with asyncio tests: the time-out can be swallowed by a task in the background, and the test passes.
#
# pytest-timeout's README on its method "signal" (the default where there is SIGALRM): the signal's handler will "use
# pytest.fail() to interrupt the test", and the run goes on with the next one. The handler raises Failed in whatever code the
# main thread is in. In an asyncio test that is often not the test: it is a worker, a consumer or a lease renewal in a task of
# its own. asyncio stores the exception in that task (it lets only KeyboardInterrupt and SystemExit through), and the alarm was
# the only one: the test goes on without a limit. One that waits for something that will not come stands still for good; one
# that ends says "passed" after three times its limit. The same test that merely waits (the second below) fails as documented.
# What to do: a limit inside the loop (asyncio.timeout) for the test's own waiting, pytest-timeout's method "thread" as the
# last net.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    pytest==9.2.0 pytest-timeout==2.4.0 pytest-asyncio==1.5.0

cat > "$folder/test_limit.py" <<'EOF'
import asyncio
import time

import pytest


async def worker():
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        pass  # a job that computes


@pytest.mark.asyncio
@pytest.mark.timeout(1)
async def test_with_a_worker_that_computes():
    task = asyncio.create_task(worker())
    await asyncio.sleep(3)
    print("the worker got:", type(task.exception()).__name__, task.exception())


@pytest.mark.asyncio
@pytest.mark.timeout(1)
async def test_with_a_worker_that_waits():
    asyncio.create_task(asyncio.sleep(2))
    await asyncio.sleep(3)
EOF

cd "$folder"
COLUMNS=200 venv/bin/python -m pytest -p no:cacheprovider -q -rA test_limit.py > out 2>&1 || true
grep -hE '^(PASSED|FAILED|the worker got)' out | tee seen

diff seen - <<'EOF'
the worker got: Failed Timeout (>1.0s) from pytest-timeout.
PASSED test_limit.py::test_with_a_worker_that_computes
FAILED test_limit.py::test_with_a_worker_that_waits - Failed: Timeout (>1.0s) from pytest-timeout.
EOF
echo "as it was: the time-out failed a task in the background, and the test of one second passed after three"
