#!/usr/bin/env bash
# prometheus-client 0.26.0: the scraper's weights are not read, and the version in the answer is the one that was asked for.
#
# A metrics page chooses its format from the Accept header, by RFC 9110, section 12.4.2: the largest weight q wins, and q=0 is
# "not acceptable". choose_encoder() takes OpenMetrics wherever it is named at all, even with q=0, and text of version 0.0.4
# with q=1 beside it loses. The Content-Type then repeats any version from 1.0.0 on that the scraper named (2.0.0, and 9.0.0,
# which there is not), above a body that is the same to the byte as that of 1.0.0. A scraper that parses by the Content-Type,
# as it should, parses by rules that the body was not written by. What to do: choose from the header oneself, then call
# prometheus_client.generate_latest() or the one of .openmetrics.exposition, and name in Content-Type what was written.
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install prometheus-client==0.26.0

"$folder/venv/bin/python" - <<'EOF' | tee "$folder/seen"
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import choose_encoder

registry = CollectorRegistry()
Gauge("jobs_ready", "Jobs that wait for a worker", registry=registry).set(7)
openmetrics = "application/openmetrics-text; version="
accepts = (
    openmetrics + "1.0.0",
    openmetrics + "1.0.0; q=0, text/plain; version=0.0.4; q=1",
    openmetrics + "1.0.0; q=0.1, text/plain; version=0.0.4; q=0.9",
    openmetrics + "2.0.0",
    openmetrics + "9.0.0",
)
for accept in accepts:
    encoder, content_type = choose_encoder(accept)
    kind, version = (part.strip() for part in content_type.split(";")[:2])
    same = encoder(registry) == choose_encoder(accepts[0])[0](registry)
    print(f"{accept}\n  answered by {kind} {version}, the same bytes as for 1.0.0: {same}")
EOF

diff "$folder/seen" - <<'EOF'
application/openmetrics-text; version=1.0.0
  answered by application/openmetrics-text version=1.0.0, the same bytes as for 1.0.0: True
application/openmetrics-text; version=1.0.0; q=0, text/plain; version=0.0.4; q=1
  answered by application/openmetrics-text version=1.0.0, the same bytes as for 1.0.0: True
application/openmetrics-text; version=1.0.0; q=0.1, text/plain; version=0.0.4; q=0.9
  answered by application/openmetrics-text version=1.0.0, the same bytes as for 1.0.0: True
application/openmetrics-text; version=2.0.0
  answered by application/openmetrics-text version=2.0.0, the same bytes as for 1.0.0: True
application/openmetrics-text; version=9.0.0
  answered by application/openmetrics-text version=9.0.0, the same bytes as for 1.0.0: True
EOF
echo "as it was: no weight counts, and the version is an echo"
