"""Bugs of policies and limits, and of what somebody chose."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

POLICY_MUTANTS: Final = (
    Mutant(
        "a policy goes before what was chosen",
        "core/model/policies.py",
        "settings.keys() - own.keys() - others:",
        "settings.keys() - others:",
        ("core/test_core_policies.py",),
        "5.16: a program gets another concurrency than it declared",
    ),
    Mutant(
        "the lowest priority says it",
        "core/model/policies.py",
        "key=lambda each: -each.priority)",
        "key=lambda each: each.priority)",
        ("core/test_core_policies.py",),
        "5.16: of several policies the highest priority",
    ),
    Mutant(
        "a limit does not hold where nobody said a bound",
        "core/model/policies.py",
        "            if not settings[name] or int(settings[name]) > value:\n",
        "            if int(settings[name]) > value:\n",
        ("core/test_core_policies.py",),
        "5.16: 0 is larger than any limit",
    ),
    Mutant(
        "of several limits the last one holds",
        "core/model/policies.py",
        "            if not settings[name] or int(settings[name]) > value:\n",
        "            if int(settings[name]) != value:\n",
        ("core/test_core_policies.py",),
        "5.16: the smallest of all limits",
    ),
    Mutant(
        "a message may live longer than the limit",
        "core/model/policies.py",
        '        return min(asked_ms, settings.limits.get("message_ttl_ms", asked_ms))\n',
        "        return asked_ms\n",
        ("core/test_core_policies.py",),
        "5.16: an application lifts the limit message by message",
    ),
    Mutant(
        "a publish that makes a queue fills it beyond its limit",
        "core/verbs/publishing.py",
        "    if queue is None and store.policies:\n",
        "    if queue is None and not store.policies:\n",
        ("core/test_core_policies.py",),
        "the apply of a publish cannot make the room that was not checked: the broker ends",
    ),
    Mutant(
        "a new queue goes by no policy until the next change",
        "core/model/state.py",
        "        if self.policies:\n            self.policies.carry_out(self, queue)\n",
        "        if self.policies and home is not None:\n            self.policies.carry_out(self, queue)\n",
        ("core/test_core_policies.py",),
        "5.16: those that will come",
    ),
    Mutant(
        "queues go by no policy after a start",
        "core/model/policies.py",
        "                queue.take(self.decide(queue))\n",
        "                pass\n",
        ("core/test_core_policies.py",),
        "5.16: over restarts",
    ),
    Mutant(
        "a change under way is not begun anew by another one",
        "core/verbs/policing.py",
        "    is_under_way, store.policies.done = store.policies.done is not None, 0\n",
        "    is_under_way = store.policies.done is not None\n    store.policies.done = store.policies.done or 0\n",
        ("core/test_core_policies.py",),
        "5.16: queues that were gone through have the older policy",
    ),
    Mutant(
        "a queue that is used before its turn has what was before",
        "core/core.py",
        "    if store.policies.done is not None:\n        policing.catch_up(store, frame)\n",
        "",
        ("core/test_core_policies.py",),
        "5.16: the next frame that names a queue",
    ),
    Mutant(
        "the record of a queue has what policies say",
        "core/model/queues.py",
        "            settings, chosen = DEFAULTS | settings, list(self.chosen)\n",
        "            settings, chosen = dict(self.settings), list(self.settings)\n",
        ("core/test_core_policies.py",),
        "a policy that ended holds for ever",
    ),
    Mutant(
        "of an older record all settings count as chosen",
        "core/model/queues.py",
        "[name for name, value in settings.items() if value != DEFAULTS.get(name)]",
        "list(settings)",
        ("core/test_core_policies.py",),
        "no policy holds for a queue that the release before declared",
    ),
    Mutant(
        "whoever may manage a queue may lift its limit",
        "access/rights.py",
        '        _row("policy_delete", {Right.ADMIN}',
        '        _row("policy_delete", {Right.ADMIN, Right.MANAGE}',
        ("access/test_rights_walk.py",),
        "4.6: limits are those of who runs the server",
    ),
)
