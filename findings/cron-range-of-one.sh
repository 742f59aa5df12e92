#!/usr/bin/env bash
# croniter 7.0.0 and cronsim 2.8: a range from a number to itself, like 1-1, is not that number.
#
# crontab(5): a range is inclusive, and 8-11 are the hours 8, 9, 10 and 11; so 1-1 in the field for the weekday is Monday.
# croniter takes it for every day, and 5-5/10 in the field for the minute for every ten minutes from 0 on, not the fifth alone.
# cronsim reads 1-1 as Monday, but a step makes it go on to the end of the field: 1-1/6 is Monday and Sunday. Whoever makes
# expressions by a program (first, last and step out of a form) writes such ranges, and a job runs on days that nobody
# chose. What to do: write n for n-n and for n-n/step before either library sees it.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install cronsim==2.8 croniter==7.0.0

"$folder/venv/bin/python" - <<'EOF' | tee "$folder/seen"
from datetime import datetime
from itertools import islice

from croniter import croniter
from cronsim import CronSim

start = datetime(2026, 11, 1, 12)  # a Sunday
for expression in ("0 0 * * 1", "0 0 * * 1-2", "0 0 * * 1-1", "0 0 * * 1-1/6", "5-5/10 * * * *"):
    ours = [f"{when:%a %H:%M}" for when in islice(CronSim(expression, start), 3)]
    other = croniter(expression, start)
    theirs = [f"{other.get_next(datetime):%a %H:%M}" for _ in range(3)]
    print(f"{expression:14} | cronsim {', '.join(ours)} | croniter {', '.join(theirs)}")
EOF

cat > "$folder/expected" <<'EOF'
0 0 * * 1      | cronsim Mon 00:00, Mon 00:00, Mon 00:00 | croniter Mon 00:00, Mon 00:00, Mon 00:00
0 0 * * 1-2    | cronsim Mon 00:00, Tue 00:00, Mon 00:00 | croniter Mon 00:00, Tue 00:00, Mon 00:00
0 0 * * 1-1    | cronsim Mon 00:00, Mon 00:00, Mon 00:00 | croniter Mon 00:00, Tue 00:00, Wed 00:00
0 0 * * 1-1/6  | cronsim Mon 00:00, Sun 00:00, Mon 00:00 | croniter Sat 00:00, Sun 00:00, Sat 00:00
5-5/10 * * * * | cronsim Sun 12:05, Sun 12:15, Sun 12:25 | croniter Sun 12:10, Sun 12:20, Sun 12:30
EOF
diff "$folder/expected" "$folder/seen"
echo "seen: a range from a number to itself is another range for croniter, and with a step for cronsim"
