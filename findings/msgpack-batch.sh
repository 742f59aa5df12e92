#!/usr/bin/env bash
# msgpack 1.2.4: one object that cannot be packed takes everything with it that was packed before, without a word.
#
# Packer(autoreset=False) is there to collect several objects in one buffer: "If set this to false, use bytes() to get content
# and .reset() to clear buffer", its docstring says. When pack() raises TypeError (a datetime, say), the buffer is emptied as a
# whole, not down to where that object began. A producer that catches the error, skips the one bad message and sends what it
# has, sends a batch without the good ones before it, and nobody is told. The C extension and the pure Python packer do the
# same, pack_array_header() and pack_map_header() included, so that a header can be gone from under its elements: the rest of
# the stream is then read as other objects. What to do: pack each object by itself (packb) and join, or take bytes() after
# each.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install msgpack==1.2.4

cat > "$folder/batch.py" <<'EOF'
import datetime

import msgpack

packer = msgpack.Packer(autoreset=False)
sent = []
for job in ({"id": 1}, {"id": 2}, {"id": 3, "at": datetime.datetime(2026, 1, 1)}, {"id": 4}):
    try:
        packer.pack(job)
        sent.append(job["id"])
    except TypeError:
        print(f"  job {job['id']} cannot be packed, the others go on")
unpacker = msgpack.Unpacker()
unpacker.feed(packer.bytes())
print("  packed without an error:", sent, "in the batch:", [job["id"] for job in unpacker])
EOF

for pure in "" 1; do
    echo "${pure:+pure Python}${pure:-C extension}" | sed 's/Python1/Python/'
    MSGPACK_PUREPYTHON=$pure "$folder/venv/bin/python" "$folder/batch.py"
done | tee "$folder/seen"

diff "$folder/seen" - <<'EOF'
C extension
  job 3 cannot be packed, the others go on
  packed without an error: [1, 2, 4] in the batch: [4]
pure Python
  job 3 cannot be packed, the others go on
  packed without an error: [1, 2, 4] in the batch: [4]
EOF
echo "as it was: jobs 1 and 2 are in no batch"
