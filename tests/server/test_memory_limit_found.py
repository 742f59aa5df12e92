"""The default limit: the smallest of what bounds the process, wherever that is said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hand import Hand

from minibrokerd.process import memory_limit
from minibrokerd.process.memory_limit import Bound, MemoryLimit, group_bounds, share_of
from support.broker import COMMAND, BrokerServer

MIB = 1024 * 1024
NO_LIMIT = "9223372036854771712\n"  # what version 1 says where none is set
V1 = "36 31 0:33 {root} {at} rw,relatime - cgroup cgroup rw,memory\n"
V2 = "24 18 0:22 {root} {at} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
NOISE = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n23 1 8:1 / / rw - ext4 /dev/sda1 rw\nodd line\n"


def smallest(tmp_path: Path, files: dict[str, str], groups: str, *mounts: str) -> tuple[int, str]:
    """Return the smallest bound in a tree of files, and the file that says it."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def read(path: str) -> str | None:
        return Path(path).read_text() if Path(path).is_file() else None

    table = NOISE + "".join(mounts)
    bounds = list(group_bounds(groups, table, read))
    if not bounds:
        return 0, ""
    bound = min(bounds, key=lambda each: each.bytes)
    return bound.bytes, bound.origin.removeprefix(f"cgroup:{tmp_path}/")


def mounted(line: str, at: Path, root: str = "/") -> str:
    """Return a line of mountinfo, blanks as it writes them."""
    return line.format(root=root, at=str(at).replace(" ", "\\040"))


def test_version_2_has_the_smallest_on_the_way_up(tmp_path: Path) -> None:
    files = {
        "a/memory.max": f"{300 * MIB}\n",
        "a/b/memory.max": f"{200 * MIB}\n",
        "a/b/c/memory.max": "max\n",
        "other/memory.max": f"{MIB}\n",
    }
    found = smallest(tmp_path, files, "0::/a/b/c\n", mounted(V2, tmp_path))
    assert found == (200 * MIB, "a/b/memory.max")


def test_memory_high_counts(tmp_path: Path) -> None:
    """Beyond it the kernel slows the group down until nothing moves."""
    files = {"a/memory.max": f"{300 * MIB}\n", "a/memory.high": f"{200 * MIB}\n"}
    found = smallest(tmp_path, files, "0::/a\n", mounted(V2, tmp_path))
    assert found == (200 * MIB, "a/memory.high")


def test_version_1(tmp_path: Path) -> None:
    files = {
        "memory.limit_in_bytes": NO_LIMIT,
        "a/memory.limit_in_bytes": f"{256 * MIB}\n",
        "a/b/memory.limit_in_bytes": NO_LIMIT,
    }
    groups = "5:cpu,cpuacct:/x\n4:memory:/a/b\n1:name=systemd:/z\n"
    found = smallest(tmp_path, files, groups, mounted(V1, tmp_path))
    assert found == (256 * MIB, "a/memory.limit_in_bytes")


def test_version_1_knows_a_limit_that_a_container_does_not_see(tmp_path: Path) -> None:
    """Its statistics have the smallest limit up to the real root."""
    stat = f"cache 1\nhierarchical_memory_limit {128 * MIB}\nhierarchical_memsw_limit 1\n"
    files = {"memory.limit_in_bytes": NO_LIMIT, "memory.stat": stat}
    found = smallest(tmp_path, files, "4:memory:/\n", mounted(V1, tmp_path))
    assert found == (128 * MIB, "memory.stat:hierarchical_memory_limit")


def test_both_versions_side_by_side(tmp_path: Path) -> None:
    """As systemd sets them up in between; the second one has no memory controller."""
    files = {
        "memory/a/memory.limit_in_bytes": f"{256 * MIB}\n",
        "unified/a/cgroup.procs": "1\n",
    }
    mounts = mounted(V1, tmp_path / "memory"), mounted(V2, tmp_path / "unified")
    found = smallest(tmp_path, files, "4:memory:/a\n0::/a\n", *mounts)
    assert found == (256 * MIB, "memory/a/memory.limit_in_bytes")


@pytest.mark.parametrize(("line", "file"), [(V1, "memory.limit_in_bytes"), (V2, "memory.max")])
def test_a_container_whose_mount_begins_at_its_own_group(
    line: str, file: str, tmp_path: Path
) -> None:
    """The path is the host's, what is mounted is that folder of it."""
    number = "4:memory" if line is V1 else "0:"
    files = {file: f"{256 * MIB}\n", f"child/{file}": f"{99 * MIB}\n"}
    root = "/docker/0123"
    for path, expected in (
        (root, (256 * MIB, file)),
        (f"{root}/child", (99 * MIB, f"child/{file}")),
    ):
        groups = f"{number}:{path}\n"
        assert smallest(tmp_path, files, groups, mounted(line, tmp_path, root)) == expected


@pytest.mark.parametrize("path", ["/", "/../../other", "/docker/9999/elsewhere"])
def test_what_cannot_be_seen_leaves_what_can(path: str, tmp_path: Path) -> None:
    """A view of its own, a process outside of it, a path that belongs to another mount."""
    files = {"memory.max": f"{256 * MIB}\n"}
    found = smallest(tmp_path, files, f"0::{path}\n", mounted(V2, tmp_path, "/docker/0123"))
    assert found == (256 * MIB, "memory.max")


def test_a_mount_point_with_blanks(tmp_path: Path) -> None:
    files = {"c groups/a b/memory.max": f"{256 * MIB}\n"}
    found = smallest(tmp_path, files, "0::/a b\n", mounted(V2, tmp_path / "c groups"))
    assert found == (256 * MIB, "c groups/a b/memory.max")


@pytest.mark.parametrize("text", ["max\n", "", "0\n", "-1\n", "many\n", "\u0663\n"])
def test_what_is_no_number_of_bytes_bounds_nothing(text: str, tmp_path: Path) -> None:
    assert smallest(tmp_path, {"memory.max": text}, "0::/\n", mounted(V2, tmp_path)) == (0, "")


@pytest.mark.parametrize("groups", ["", "nonsense", "::", "0::", "4:memory", "0::a"])
def test_odd_tables_bound_nothing_and_raise_nothing(groups: str, tmp_path: Path) -> None:
    tables = (mounted(V1, tmp_path), mounted(V2, tmp_path), " - cgroup2\n")
    assert smallest(tmp_path, {}, groups, *tables) == (0, "")


@pytest.mark.parametrize(
    ("bound_mib", "limit_mib"), [(16_384, 9_830), (256, 153), (100, 64), (80, 64), (64, 51)]
)
def test_the_server_takes_a_share_and_of_little_somewhat_more(
    bound_mib: int, limit_mib: int
) -> None:
    limit = share_of(Bound(bound_mib * MIB, "machine"))
    assert limit == MemoryLimit(limit_mib * MIB, "machine")


def test_the_machine_bounds_what_nothing_else_does() -> None:
    bound = memory_limit.smallest_bound()
    total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < bound.bytes <= total_bytes


# -- a real server --------------------------------------------------------------------------------


def started(server: BrokerServer) -> dict[str, object]:
    """Return the event of the start."""
    told = [json.loads(line) for line in server.lines if line.startswith("{")]
    (event,) = [event for event in told if event["event"] == "started"]
    return dict(event)


def configured(*command: str) -> dict[str, str]:
    """Return what `config` shows of the limit."""
    done = subprocess.run([*command, "config", "--json"], capture_output=True, check=True)
    return dict(json.loads(done.stdout)["memory_limit"])


def test_a_resource_limit_is_seen_and_said(tmp_path: Path) -> None:
    """`ulimit -v`; the event and `config` say the same."""
    limited = (
        sys.executable,
        "-c",
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({1024 * MIB},) * 2); "
        "os.execv(sys.argv[1], sys.argv[1:])",
        *COMMAND,
    )
    server = BrokerServer(tmp_path / "data", "--log-format", "json", command=limited)
    try:
        assert server.stop() == 0
    finally:
        server.close()
    event = started(server)
    assert event["memory_limit_bytes"] == 614 * MIB
    assert event["memory_limit_from"] == "rlimit:RLIMIT_AS"
    row = configured(*limited)
    assert row["value"] == "614MiB"
    assert "rlimit:RLIMIT_AS" in row["from"]


def test_what_was_set_is_said_to_be(tmp_path: Path) -> None:
    server = BrokerServer(
        tmp_path / "data", "--log-format", "json", "--memory-limit", str(100 * MIB)
    )
    try:
        assert server.stop() == 0
    finally:
        server.close()
    event = started(server)
    assert (event["memory_limit_bytes"], event["memory_limit_from"]) == (
        100 * MIB,
        "--memory-limit",
    )


def test_a_limit_that_changes_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`systemctl set-property`, a container that is resized; what was set by hand stays."""
    hand = Hand()
    monkeypatch.setattr(memory_limit, "smallest_bound", lambda: Bound(8 * MIB, "cgroup:/x"))
    hand.server._look_at_limit()
    assert hand.server.engine._pager._most_bytes == 3 * MIB
    assert memory_limit.of_option(100) == MemoryLimit(100, "--memory-limit")


@pytest.fixture
def group() -> Iterator[tuple[Path, str]]:
    """A control group below this process's own, and its file for the limit; skipped where none can be made."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controllers == "memory":
            folder, file = Path(f"/sys/fs/cgroup/memory{path}"), "memory.limit_in_bytes"
        elif number == "0" and Path(f"/sys/fs/cgroup{path}/memory.max").exists():
            folder, file = Path(f"/sys/fs/cgroup{path}"), "memory.max"
        else:
            continue
        folder = folder / f"minibroker-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        yield folder, file
        folder.rmdir()
        return
    pytest.skip("no control group can be made here")


def test_a_control_group_is_seen_and_said(group: tuple[Path, str], tmp_path: Path) -> None:
    """The kernel's own tables; what the event names is the file that has the limit."""
    folder, file = group
    (folder / file).write_text(str(256 * MIB))
    enter = (
        "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); "
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    command = (sys.executable, "-c", enter, str(folder / "cgroup.procs"), *COMMAND)
    server = BrokerServer(tmp_path / "data", "--log-format", "json", command=command)
    try:
        assert server.stop() == 0  # all its lines are there
        event = started(server)
        assert event["memory_limit_bytes"] == 153 * MIB
        assert re.fullmatch(rf"cgroup:{folder}/{file}|cgroup:{folder}/memory.stat:.*",
                            str(event["memory_limit_from"]))  # fmt: skip
    finally:
        server.close()
