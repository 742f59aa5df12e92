"""What stands in the log and must outlive the segment that it stands in, so that copying forward finds it.

Nothing is looked at twice, and nothing that is new is looked at to find what is old (docs/decisions/0010):

- What waits in the default line of a queue is many spans in order; a pass walks each such line once.
- What is held or begun is found by its delivery; a pass turns once round all deliveries.
- All else stands here in buckets by the batch of its record: settings of queues, outcomes of sessions, and shelves
  (shelf.py) of what is delayed, has a key, or came back. A pass takes whole buckets from the oldest on.

A message moves between the three at any time. It never moves into the default line, so that is walked first; and a
delivery that takes something old out of a bucket is put into that bucket itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from minibrokerd.core.model.messages import NEVER

if TYPE_CHECKING:
    from minibrokerd.core.model.deliveries import Delivery
    from minibrokerd.core.model.lanes import Lanes
    from minibrokerd.core.model.shelf import Shelf

BUCKET_BITS: Final = 6  # batches of one bucket: 2 to the power of this


class Standing:
    """The buckets, the default lines that are still to be walked, and how far the pass has come.

    `upto` is the newest batch of what the pass looks for. `lines` are of lanes whose default line may have some.
    `item_bytes` is what the items of all indexes take of memory (footprints.py), logged or not.
    `took_old` says that something old was taken out of a bucket since it was last set to False.
    """

    __slots__ = (
        "_buckets",
        "_last",
        "_later",
        "_order",
        "deliveries_left",
        "done",
        "item_bytes",
        "lines",
        "lines_left",
        "took_old",
        "upto",
    )

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Any, Any]] = {}
        self._order: list[int] = []  # the numbers of the buckets, a heap; some may be gone
        self._last = (
            -1
        )  # while a pass goes on: the bucket of `upto`; it may have newer things, too,
        self._later: dict[Any, Any] = {}  # and those that are newer and were looked at
        self.upto = 0
        self.done = True
        self.item_bytes = 0
        self.lines: dict[Lanes, None] = {}
        self.lines_left: dict[Lanes, None] = {}
        self.deliveries_left: int | None = 0  # of the turn; None: it has not begun
        self.took_old = False

    def begin(self, upto: int) -> None:
        """Begin a pass over all that stands in batches up to `upto`."""
        self._put_later_back()
        self.upto, self.done, self._last = upto, False, upto >> BUCKET_BITS
        if self.lines_left:  # the pass before was given up
            self.lines_left.update(self.lines)
        else:
            self.lines_left = self.lines
        self.lines = {}
        self.deliveries_left = None

    # -- messages -------------------------------------------------------------------------------

    def lower(self, shelf: Shelf, batch: int) -> None:
        """Note that something in a shelf stands in an older batch than all that was known of it."""
        shelf.low = batch
        if batch <= self.upto:
            shelf.at = 0  # the pass may have been behind its place
        if batch < shelf.noted:
            self.note(shelf)

    def note(self, shelf: Shelf) -> None:
        """Note a shelf under what is known of it now."""
        self.forget(shelf)
        shelf.noted = shelf.low
        if shelf.noted != NEVER:  # what is in no log is not copied
            self.put(shelf.noted, shelf, None)

    def note_rest(self, shelf: Shelf) -> None:
        """Note a shelf that the pass has looked at in part: it comes again in this pass."""
        self.forget(shelf)
        shelf.noted = self.upto
        self.put(self.upto, shelf, None)

    def forget(self, shelf: Shelf) -> None:
        """Do not look at a shelf any more, unless it is noted again."""
        if shelf.noted != NEVER:
            self.drop(shelf.noted, shelf)
            shelf.noted = NEVER

    def add_delivery(self, delivery: Delivery) -> None:
        """Have a delivery looked at that got something old after the pass came by."""
        self.put(self.upto, delivery, None)
        self.took_old = False

    # -- anything -------------------------------------------------------------------------------

    def put(self, batch: int, thing: object, value: object) -> None:
        """Note that something needs a record of `batch`, or of one after it."""
        self._bucket(batch)[thing] = value

    def _bucket(self, batch: int) -> dict[Any, Any]:
        """Return where to put what needs a record of `batch`."""
        number = batch >> BUCKET_BITS
        if number == self._last and batch > self.upto:
            return self._later
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = {}
            heappush(self._order, number)
        return bucket

    def drop(self, batch: int, thing: object) -> None:
        """Forget something that was noted under a batch."""
        number = batch >> BUCKET_BITS
        bucket = self._buckets.get(number)
        if bucket is not None and thing in bucket:
            del bucket[thing]
            if not bucket:
                del self._buckets[number]
        else:
            self._later.pop(thing, None)

    def oldest(self) -> Iterator[tuple[Any, Any]]:
        """Take out and yield (thing, its value) of the buckets up to that of `upto`; may be left at any time.

        What is yielded has to be put again.
        """
        while self._order:
            number = self._order[0]
            bucket = self._buckets.get(number)
            if bucket is None:
                heappop(self._order)
            elif number > self._last:
                break
            elif bucket:
                yield bucket.popitem()
            else:
                del self._buckets[number]
        self._put_later_back()

    def _put_later_back(self) -> None:
        later, self._later = self._later, {}
        number, self._last = self._last, -1
        if later:
            bucket = self._buckets.get(number)
            if bucket is None:
                self._buckets[number] = later
                heappush(self._order, number)
            else:  # only where a pass was given up
                bucket.update(later)
