#!/usr/bin/env bash
# watchfiles 1.3.0 on Linux: a watched file that is replaced by rename is seen once, and then never again.
#
# awatch() takes "filesystem paths to watch", files too, and goes on until it is stopped. Editors, deployment tools, `sed -i`
# and secret mounts replace a file by rename. The watch lies on the inode: the first replacement comes as "deleted" and
# "modified", and with the inode the watch is gone; no later change is seen, written in place or by rename, no error is raised
# and the loop waits on. A worker that reloads its settings or certificates does so once, in the test and on the first day. The
# folder above, watched with a filter for the name, sees each of them. What to do: watch the folder; or leave the loop after
# each change and call awatch() again, reading the file once more behind that.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install watchfiles==1.3.0 anyio==4.16.0 idna==3.20

"$folder/venv/bin/python" - "$folder" <<'EOF' | tee "$folder/seen"
import asyncio
import pathlib
import sys

from watchfiles import awatch


async def seen_after(watched, step):
    """Whether each of four changes of settings.toml is told within a second."""
    settings, told, stop = folder / "settings.toml", asyncio.Event(), asyncio.Event()
    settings.write_text("first")

    async def watch():
        only = lambda change, path: path.endswith("settings.toml")
        async for _ in awatch(watched, watch_filter=only, stop_event=stop, debounce=100, step=20, rust_timeout=100):
            told.set()

    task, answers = asyncio.create_task(watch()), []
    await asyncio.sleep(0.5)
    for number in range(4):
        told.clear()
        step(settings, f"number {number}")
        try:
            await asyncio.wait_for(told.wait(), 1)
        except TimeoutError:
            pass
        answers.append("seen" if told.is_set() else "not seen")
        await asyncio.sleep(0.3)
    stop.set()
    await task
    return ", ".join(answers)


def write_in_place(settings, text):
    settings.write_text(text)


def replace_by_rename(settings, text):
    (folder / "new").write_text(text)
    (folder / "new").rename(settings)


folder = pathlib.Path(sys.argv[1]).resolve() / "etc"
folder.mkdir()
for watched in (folder / "settings.toml", folder):
    for step in (write_in_place, replace_by_rename):
        what = "the file" if watched != folder else "the folder"
        (folder / "settings.toml").touch()
        print(f"{what} watched, {step.__name__}:", asyncio.run(seen_after(watched, step)))
EOF

diff "$folder/seen" - <<'EOF'
the file watched, write_in_place: seen, seen, seen, seen
the file watched, replace_by_rename: seen, not seen, not seen, not seen
the folder watched, write_in_place: seen, seen, seen, seen
the folder watched, replace_by_rename: seen, seen, seen, seen
EOF
echo "as it was: the second replacement of a watched file is not seen"
