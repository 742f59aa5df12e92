#!/usr/bin/env bash
# prometheus-client 0.26.0: two metrics that differ in a dot are accepted, and the page has one name twice.
#
# The registry refuses a second metric of one name ("Duplicated timeseries in CollectorRegistry"), so a page that was made from
# it should not hold one twice: the text format allows one TYPE line for a name. Names with dots are legal since UTF-8 names
# are. Whoever does not ask for them (curl, generate_latest()) gets dots as underscores, and that is done while writing, behind
# the check: queue.depth (as OpenTelemetry would name it) beside queue_depth gives two HELP, two TYPE and two samples of one
# series. The library's own parser reads one metric with both; which value counts is left to the scraper. What to do:
# underscores only in names that a page shows, and a test that generate_latest() has each name once.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install prometheus-client==0.26.0

"$folder/venv/bin/python" - <<'EOF' | tee "$folder/seen"
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

registry = CollectorRegistry()
Gauge("queue.depth", "By OpenTelemetry", registry=registry).set(1)
Gauge("queue_depth", "By hand", registry=registry).set(2)
try:
    Gauge("queue_depth", "Once more", registry=registry)
except ValueError as error:
    print("a third one:", str(error).split(":")[0])
page = generate_latest(registry).decode()
print(page, end="")
for family in text_string_to_metric_families(page):
    print("read back:", family.name, [sample.value for sample in family.samples])
EOF

diff "$folder/seen" - <<'EOF'
a third one: Duplicated timeseries in CollectorRegistry
# HELP queue_depth By OpenTelemetry
# TYPE queue_depth gauge
queue_depth 1.0
# HELP queue_depth By hand
# TYPE queue_depth gauge
queue_depth 2.0
read back: queue_depth [1.0, 2.0]
EOF
echo "as it was: two metrics of one name on one page"
