"""Bugs in the table of transitions: one for each row, and for what goes a shorter way beside it."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

TABLE: Final = "core/model/transitions.py"
BY: Final = ("core/test_core_transitions.py",)

TRANSITION_MUTANTS: Final = (
    Mutant(
        "what is redriven counts as held for ever",
        TABLE,
        "    (None, READY): Row(),",
        '    (None, READY): Row(enters="held"),',
        BY,
        "a redriven message is held by nobody",
    ),
    Mutant(
        "a delay that is not counted",
        TABLE,
        '    (None, DELAYED): Row(enters="delayed_count", arms=True),',
        "    (None, DELAYED): Row(arms=True),",
        BY,
        "a delayed message is in no count",
    ),
    Mutant(
        "what is taken back is not held",
        TABLE,
        '    (None, HELD): Row(enters="held", credit=-1),',
        "    (None, HELD): Row(credit=-1),",
        BY,
        "a count falls below nothing",
    ),
    Mutant(
        "a start that runs no leases",
        TABLE,
        '    (None, BEGUN): Row(enters="begun", arms=True),',
        '    (None, BEGUN): Row(enters="begun"),',
        BY,
        "I5: what a dead worker had begun is begun for ever",
    ),
    Mutant(
        "what is due stays counted as delayed",
        TABLE,
        '    (DELAYED, READY): Row(leaves="delayed_count", disarms=True),',
        "    (DELAYED, READY): Row(disarms=True),",
        BY,
        "a count that only grows",
    ),
    Mutant(
        "another time beside the first one",
        TABLE,
        '    (DELAYED, None): Row(leaves="delayed_count", disarms=True),',
        '    (DELAYED, None): Row(leaves="delayed_count"),',
        BY,
        "I8: a message is delayed twice",
    ),
    Mutant(
        "a hand-out by the table takes no credit",
        TABLE,
        '    (READY, HELD): Row(enters="held", credit=-1),',
        '    (READY, HELD): Row(enters="held"),',
        BY,
        "a consumer gets more than its prefetch",
    ),
    Mutant(
        "an attempt without a lease",
        TABLE,
        '    (HELD, BEGUN): Row(leaves="held", enters="begun", arms=True),',
        '    (HELD, BEGUN): Row(leaves="held", enters="begun"),',
        BY,
        "I5: what a dead worker had begun is begun for ever",
    ),
    Mutant(
        "a release that gives no credit",
        TABLE,
        '    (HELD, READY): Row(leaves="held", credit=1),',
        '    (HELD, READY): Row(leaves="held"),',
        BY,
        "a consumer that releases gets nothing more",
    ),
    Mutant(
        "a second release that gives no credit",
        TABLE,
        '    (HELD, DELAYED): Row(leaves="held", enters="delayed_count", arms=True, credit=1),',
        '    (HELD, DELAYED): Row(leaves="held", enters="delayed_count", arms=True),',
        BY,
        "the same, from the second release on",
    ),
    Mutant(
        "an ack without a begin leaves it held",
        TABLE,
        '    (HELD, None): Row(leaves="held", credit=1),',
        "    (HELD, None): Row(credit=1),",
        BY,
        "a count that only grows",
    ),
    Mutant(
        "the lease of what was given back runs on",
        TABLE,
        '    (BEGUN, READY): Row(leaves="begun", disarms=True, credit=1),',
        '    (BEGUN, READY): Row(leaves="begun", credit=1),',
        BY,
        "I5, I8: a lease ends that nobody has",
    ),
    Mutant(
        "the lease of what was acked runs on",
        TABLE,
        '    (BEGUN, None): Row(leaves="begun", disarms=True, credit=1),',
        '    (BEGUN, None): Row(leaves="begun", credit=1),',
        BY,
        "I5, I8: the same, of what has ended",
    ),
    Mutant(
        "a nack that gives no credit",
        TABLE,
        '        leaves="begun", enters="delayed_count", disarms=True, arms=True, credit=1\n',
        '        leaves="begun", enters="delayed_count", disarms=True, arms=True\n',
        BY,
        "a consumer whose messages fail gets nothing more",
    ),
    Mutant(
        "a hand-out that takes no credit",
        TABLE,
        "    consumer.outstanding += count\n",
        "    assert consumer.active\n",
        BY,
        "a consumer gets more than its prefetch",
    ),
    Mutant(
        "an ack of a span leaves it held",
        TABLE,
        "    group.held -= count\n    if group.held:\n        _stir(store, group)\n    give_credit",
        "    if group.held:\n        _stir(store, group)\n    give_credit",
        BY,
        "a count that only grows",
    ),
)
