#!/usr/bin/env bash
# msgspec 0.22.0 and msgpack 1.2.4: the same timestamp, two times of day.
#
# MessagePack's timestamp (extension type -1) has nanoseconds, Python's datetime microseconds. Both libraries document it as
# the type for aware datetimes, and one expects one datetime from the same bytes. msgpack (`timestamp=3`,
# Timestamp.to_datetime()) cuts the rest off, msgspec rounds it to the nearest. So for every second time that a Go, Rust or
# Java producer writes, a worker with msgspec and one with msgpack differ by a microsecond; the last 500 ns of a second, a day
# or a year are the next one for msgspec. Keys made of the time (deduplication, partitions by day) then differ between the two.
# What to do: let the producer write whole microseconds, make no keys of such times, and compare them with a tolerance.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install msgspec==0.22.0 msgpack==1.2.4

"$folder/venv/bin/python" - <<'EOF' | tee "$folder/seen"
import datetime

import msgpack
import msgspec

last_second = int(datetime.datetime(2026, 12, 31, 23, 59, 59, tzinfo=datetime.timezone.utc).timestamp())
for nanoseconds in (0, 1_000, 1_499, 1_500, 999_999_499, 999_999_500):
    wire = msgpack.packb(msgpack.Timestamp(last_second, nanoseconds))
    cut = msgpack.unpackb(wire, timestamp=3)
    rounded = msgspec.msgpack.decode(wire, type=datetime.datetime)
    print(f"{nanoseconds:>9} ns: msgpack {cut:%Y-%m-%d %H:%M:%S.%f}, msgspec {rounded:%Y-%m-%d %H:%M:%S.%f}, {cut == rounded}")
EOF

diff "$folder/seen" - <<'EOF'
        0 ns: msgpack 2026-12-31 23:59:59.000000, msgspec 2026-12-31 23:59:59.000000, True
     1000 ns: msgpack 2026-12-31 23:59:59.000001, msgspec 2026-12-31 23:59:59.000001, True
     1499 ns: msgpack 2026-12-31 23:59:59.000001, msgspec 2026-12-31 23:59:59.000001, True
     1500 ns: msgpack 2026-12-31 23:59:59.000001, msgspec 2026-12-31 23:59:59.000002, False
999999499 ns: msgpack 2026-12-31 23:59:59.999999, msgspec 2026-12-31 23:59:59.999999, True
999999500 ns: msgpack 2026-12-31 23:59:59.999999, msgspec 2027-01-01 00:00:00.000000, False
EOF
echo "as it was: msgpack cuts the nanoseconds off, msgspec rounds them"
