#!/usr/bin/env bash
# OpenTelemetry's SDK for Python marks the trace ids that it makes as random: flag 2 of W3C Trace Context, level 2. So the
# flags of a span that is sampled are 3, and of one that is not they are 2. Two propagators of the same project
# compare and copy them as if there were flag 1 alone:
#
# - ot-trace asks `trace_flags == SAMPLED`, so it writes `ot-tracer-sampled: false` for every span that IS sampled. The
#   next service, with the default sampler (as the parent says), records nothing: each trace ends at its first hop.
# - jaeger copies the number. Its bit 2 means "debug", which its format allows with bit 1 only: a span that is NOT sampled
#   goes out with flags 02, a debug span that is not sampled.
#
# Seen on 2026-11-28 with opentelemetry-sdk 1.45.2, opentelemetry-propagator-ot-trace 0.66b1, opentelemetry-propagator-jaeger
# 1.45.1 and Python 3.11; with the SDKs 1.42.1, 1.43.0 and 1.44.0 too. The W3C and B3 propagators are right. What to do:
# write W3C's headers as well, and read them last (OTEL_PROPAGATORS=ottrace,tracecontext).
#
# It needs python3 and the Python Package Index; it ends with 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install \
    opentelemetry-api==1.45.2 opentelemetry-sdk==1.45.2 opentelemetry-semantic-conventions==0.66b2 \
    opentelemetry-propagator-ot-trace==0.66b1 opentelemetry-propagator-jaeger==1.45.1 opentelemetry-propagator-b3==1.45.1

"$folder/venv/bin/python" - <<'EOF' | tee "$folder/seen"
from opentelemetry.propagators.b3 import B3SingleFormat
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.propagators.ot_trace import OTTracePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator


def flags_in(carrier):
    if "ot-tracer-sampled" in carrier:
        return carrier["ot-tracer-sampled"]
    (value,) = carrier.values()
    return value.replace(":", "-").split("-")[-1]


for name, sampler in (("sampled", DEFAULT_ON), ("dropped", ALWAYS_OFF)):
    here = TracerProvider(sampler=sampler).get_tracer("here")
    there = TracerProvider().get_tracer("there")  # the default sampler: as the parent says
    with here.start_as_current_span("request") as span:
        print(name, "flags", int(span.get_span_context().trace_flags))
        for propagator in (
            TraceContextTextMapPropagator(), B3SingleFormat(), OTTracePropagator(), JaegerPropagator(),
        ):
            carrier = {}
            propagator.inject(carrier)
            next_one = there.start_span("next", propagator.extract(carrier))
            words = type(propagator).__name__, "writes", flags_in(carrier), "recorded", next_one.is_recording()
            print(" ", *words)
EOF

diff "$folder/seen" - <<'EOF'
sampled flags 3
  TraceContextTextMapPropagator writes 03 recorded True
  B3SingleFormat writes 1 recorded True
  OTTracePropagator writes false recorded False
  JaegerPropagator writes 03 recorded True
dropped flags 2
  TraceContextTextMapPropagator writes 02 recorded False
  B3SingleFormat writes 0 recorded False
  OTTracePropagator writes false recorded False
  JaegerPropagator writes 02 recorded False
EOF
echo "as it was: a sampled span goes out as not sampled by ot-trace, a dropped one as debug by jaeger"
