"""Bugs of exchanges, routed publishes and temporary queues."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

ROUTING_MUTANTS: Final = (
    Mutant(
        "a # takes at least one word",
        "core/model/topics.py",
        "        child = node.children.get(ANY)\n        while child is not None:\n",
        "        child = None\n        while child is not None:\n",
        ("core/test_core_routing.py",),
        "5.15: `logs.#` does not take `logs`",
    ),
    Mutant(
        "a # takes one word at the most",
        "core/model/topics.py",
        "            reached = [node for node in nodes if node.repeats]\n",
        "            reached: list[_Node[Target]] = []\n",
        ("core/test_core_routing.py",),
        "5.15: `logs.#` does not take `logs.a.b`",
    ),
    Mutant(
        "a binding that ended leaves its node in the trie",
        "core/model/topics.py",
        "        while path and not (node.targets or node.children):\n",
        "        while path and not (node.targets or path):\n",
        ("core/test_core_routing.py",),
        "bindings that come and go fill memory",
    ),
    Mutant(
        "what a routing key came to is remembered beyond a new binding",
        "core/model/exchanges.py",
        "        insort(self.bindings, binding)\n        self._remembered.clear()\n",
        "        insort(self.bindings, binding)\n",
        ("core/test_core_routing.py",),
        "a queue that is bound gets nothing for routing keys that were used before",
    ),
    Mutant(
        "exchanges that lead to each other are asked for ever",
        "core/model/exchanges.py",
        "                if target.number not in asked:\n                    asked.add(target.number)\n",
        "                if len(asked) < 50:\n                    asked.add(target.number + 100 * len(line))\n",
        ("core/test_core_routing.py",),
        "5.15: a circle of exchanges is more queues than there are",
    ),
    Mutant(
        "a queue that is full is found out behind others that were filled",
        "core/verbs/routing.py",
        "            check_room(store, queue, asked if claims is None else claims.add(queue.name, asked))\n",
        "            pass\n",
        ("core/test_core_routing.py",),
        "5.15: all or nothing; the limit of a queue does not hold",
    ),
    Mutant(
        "the bindings of a queue outlive it",
        "core/verbs/moving.py",
        "        store.exchanges.queue_gone(store, each.number)\n",
        "",
        ("core/test_core_routing.py", "core/test_core_unused.py"),
        "they are shown and kept for ever, and lead nowhere",
    ),
    Mutant(
        "each queue has the time to live of the first one",
        "core/verbs/routing.py",
        '        ttl_ms = part.ttl_ms or queue.setting("message_ttl_ms")\n',
        '        ttl_ms = part.ttl_ms or queues[0].setting("message_ttl_ms")\n',
        ("core/test_core_routing.py",),
        "5.13: `message_ttl_ms` is that of the queue",
    ),
    Mutant(
        "a start makes bindings that their exchange does not have",
        "core/model/exchanges.py",
        "            self._bound(exchange, binding)\n\n    def make",
        "            self.bindings += 1\n\n    def make",
        ("core/test_core_routing.py",),
        "after a restart nothing is routed",
    ),
    Mutant(
        "a digest drops a routed message that has ended in one queue",
        "core/durable/digest.py",
        "                self._left[len(self._others)] = len(says.targets)\n",
        "",
        ("core/test_core_routing.py",),
        "after some segments and a restart the others have it no more",
    ),
    Mutant(
        "the end of a copy is forgotten with the last copy alone",
        "core/model/lifetimes.py",
        "    for each in lifetimes.of_extent.pop(block.extent, ()):\n",
        "    for each in (block,):\n",
        ("core/test_core_routing.py",),
        "the bytes of routed messages with a time to live stay in memory for ever",
    ),
    Mutant(
        "a topic match looks at whatever there is",
        "core/model/topics.py",
        "            if most_nodes < 0:\n",
        "            if most_nodes < -(10**9):\n",
        ("core/test_core_routing.py",),
        "one message stops the loop for seconds",
    ),
    Mutant(
        "a temporary queue ends while a worker has its messages",
        "core/verbs/unused.py",
        "    return bool(group.consumer_count or group.consumers or group.deliveries or group.entering)\n",
        "    return bool(group.consumer_count or group.consumers or group.entering)\n",
        ("core/test_core_unused.py",),
        "section 7: what somebody works on is used",
    ),
    Mutant(
        "a temporary queue forgets at a start that it is one",
        "core/core.py",
        "        unused.watch_all(self.store)\n",
        "",
        ("core/test_core_unused.py",),
        "it stays for ever",
    ),
)
