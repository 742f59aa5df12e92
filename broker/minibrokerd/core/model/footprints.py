"""What each kind of thing takes of memory, about, beside the bytes of its messages: what `--memory-limit` counts.

Resident bytes as `python -m benchmarks.footprint` measures them (64-bit CPython 3.11), less those of the frame
that brought them; the row of each is named. Where none is named, the figure is a sum of objects. What all of it
misses, the shell corrects by the resident size (docs/decisions/0011).
"""

from __future__ import annotations

from typing import Final

# What waits in an index: an item, and its place there.
SPAN_OBJECT_BYTES: Final = 300  # keyed, in frames of 100: 292
TIMER_BYTES: Final = 100  # more where it is delayed by itself: 398 (docs/decisions/0058)
MESSAGE_OBJECT_BYTES: Final = 700  # retried: 812, with its timer and a short error
# What was published together and is delayed: delayed, in frames of 10 and of 100: 84 and 16 for each.
SHEAF_OBJECT_BYTES: Final = 750
SHEAVED_BYTES: Final = 10  # each message of it
SHEAVED_KEY_BYTES: Final = 92  # more where each has a key of its own: both, in frames of 100: 108

QUEUE_OBJECT_BYTES: Final = 1_000
SESSION_BYTES: Final = 1_500
DELIVERY_BYTES: Final = 1_000
OUTCOME_OBJECT_BYTES: Final = 400
UNIQUE_KEY_BYTES: Final = 300  # one that is held: its name, and who holds it
FAILING_KEY_BYTES: Final = 250  # one that failed of late, in a window of the circuits of its queue
# Those of `python -m benchmarks.footprint --bindings`.
BINDING_BYTES: Final = 450  # beside what is kept of it; fewer where many have one pattern
# A word of a topic pattern that no pattern before it has in its place.
TOPIC_NODE_BYTES: Final = 250
KEY_CIRCUIT_BYTES: Final = 600  # the circuit of a key, beside what is kept of it
