#!/usr/bin/env bash
# cronsim 2.8: on the night when the clocks go back, the first answer can lie before the moment that one asks from.
#
# `next(CronSim(expression, now))` is the next run after now, and cronsim's README says of this night, in Debian's words: "care
# is taken to avoid running jobs twice". Asked at 02:10 and 02:20 of the second pass through the hour (+01:00), "30 2 * * *"
# answers with 02:30 of the first pass (+02:00), 40 and 50 minutes ago. "30 * * * *" is right. A scheduler that makes an
# iterator from now after each run finds the answer due, runs the nightly job, asks, gets the same answer, and so on until
# 02:30: the job over and over. What to do: keep one iterator from before the night, or compare in UTC and drop what is not
# after now (Python compares two aware times of one ZoneInfo by the wall clock and does not see it: last column).
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install cronsim==2.8 tzdata==2026.6

"$folder/venv/bin/python" - <<'EOF' | tee "$folder/seen"
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from cronsim import CronSim

berlin = ZoneInfo("Europe/Berlin")
for expression in ("30 2 * * *", "30 * * * *"):
    for minute in (10, 20, 40):
        now = datetime(2026, 10, 25, 1, minute, tzinfo=timezone.utc).astimezone(berlin)
        answer = next(CronSim(expression, now))
        late = int((answer.astimezone(timezone.utc) - now.astimezone(timezone.utc)).total_seconds() // 60)
        print(f"{expression}  from {now:%d %H:%M%z}: {answer:%d %H:%M%z}, {late} minutes from now, {answer > now=}")
EOF

diff "$folder/seen" - <<'EOF'
30 2 * * *  from 25 02:10+0100: 25 02:30+0200, -40 minutes from now, answer > now=True
30 2 * * *  from 25 02:20+0100: 25 02:30+0200, -50 minutes from now, answer > now=True
30 2 * * *  from 25 02:40+0100: 26 02:30+0100, 1430 minutes from now, answer > now=True
30 * * * *  from 25 02:10+0100: 25 02:30+0100, 20 minutes from now, answer > now=True
30 * * * *  from 25 02:20+0100: 25 02:30+0100, 10 minutes from now, answer > now=True
30 * * * *  from 25 02:40+0100: 25 03:30+0100, 50 minutes from now, answer > now=True
EOF
echo "as it was: in the second pass cronsim answers with a time that is over"
