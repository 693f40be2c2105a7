"""Which work runs next, and how long new work would wait: the scheduler's policy, without clock or threads.

1. Each kind of work (a model) has a queue of its own, first come, first served, and a tab: the thread time
   that it was given.
2. Next is the kind with the lowest tab of those that wait. What it takes is added to its tab as expected, by
   the mean of its runs. So kinds that wait share the threads equally by time: beside one run of a second come
   as many runs of a millisecond as last a second.
3. A kind that did not wait begins at the lowest tab of those that do: idling saves nothing up.
4. Where all threads are busy, work that is expected to take a tenth of any of their runs at most may run
   beside them, on a thread more (``pop_short``).

A kind that waits keeps its tab while the others' grow, so it is next after bounded work of theirs.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

SHORT = 10
"""How many times longer the runs of busy threads are than work that may run beside them."""
_SMOOTHING = 8  # runs after which an old mean has lost most of its weight
_LEAST = 1e-6  # seconds: what a run costs on a tab at least, so that a tab always grows


class FairQueue(Generic[T]):
    """Work that waits, by kind. Mutable; for use under one lock."""

    def __init__(self, *, threads: int) -> None:
        """``threads`` run at once what :meth:`pop` gives."""
        self._threads = threads
        self._waiting: dict[Hashable, deque[T]] = {}  # none of them empty
        self._running: Counter[Hashable] = Counter()  # what pop gave
        self._tabs: dict[Hashable, float] = {}
        self._means: dict[Hashable, float] = {}  # seconds of a run
        self._lowest = 0.0  # tab of the kind that was chosen last

    def __len__(self) -> int:
        """How much waits."""
        return sum(map(len, self._waiting.values()))

    def push(self, kind: Hashable, item: T) -> None:
        """Let ``item`` wait."""
        if kind not in self._waiting:
            self._tabs[kind] = max(self._tabs.get(kind, 0.0), self._lowest)
            self._waiting[kind] = deque()
        self._waiting[kind].append(item)

    def pop(self) -> T | None:
        """What runs next on one of the threads, or None where nothing waits. :meth:`done` says its end."""
        if not self._waiting:
            return None
        kind = min(self._waiting, key=self._tabs.__getitem__)
        self._lowest = self._tabs[kind]
        self._running[kind] += 1
        return self._take(kind)

    def pop_short(self) -> T | None:
        """What may run beside busy threads, or None."""
        short = [kind for kind in self._waiting if self.is_short(kind)]
        return self._take(min(short, key=self._tabs.__getitem__)) if short else None

    def is_short(self, kind: Hashable) -> bool:
        """Whether work of ``kind`` is far shorter than every run of the threads, all of which are busy."""
        if self._running.total() < self._threads:
            return False
        return self._means.get(kind, math.inf) * SHORT <= min(map(self.mean, self._running))

    def remove(self, kind: Hashable, item: T) -> bool:
        """Take out what nobody wants any more; False where it does not wait."""
        queue = self._waiting.get(kind)
        if queue is None or item not in queue:
            return False
        queue.remove(item)
        self._forget_if_empty(kind)
        return True

    def done(self, kind: Hashable, seconds: float, *, short: bool) -> None:
        """A run of ``kind`` took ``seconds``; ``short``: it came from :meth:`pop_short`."""
        if not short:
            self._running[kind] -= 1
            if not self._running[kind]:
                del self._running[kind]
        known = self._means.get(kind)
        self._means[kind] = seconds if known is None else known + (seconds - known) / _SMOOTHING

    def mean(self, kind: Hashable) -> float:
        """Seconds of a run of ``kind``; of one that never ran, as of the slowest that did."""
        mean = self._means.get(kind)
        return max(self._means.values(), default=0.0) if mean is None else mean

    def expected_wait(self, kind: Hashable) -> float:
        """Seconds until new work of ``kind`` would begin; 0 where a thread is free.

        Before it come its own kind's, and as much of each other kind that waits; and half of what runs.
        """
        if len(self) + self._running.total() < self._threads:
            return 0.0
        total = sum(len(queue) * self.mean(other) for other, queue in self._waiting.items())
        own = len(self._waiting.get(kind, ())) * self.mean(kind)
        sharing = len(self._waiting.keys() | {kind})
        running = sum(number * self.mean(other) for other, number in self._running.items())
        return (min(total, own * sharing) + running / 2) / self._threads

    def _take(self, kind: Hashable) -> T:
        item = self._waiting[kind].popleft()
        self._tabs[kind] += max(self.mean(kind), _LEAST)
        self._forget_if_empty(kind)
        return item

    def _forget_if_empty(self, kind: Hashable) -> None:
        if not self._waiting[kind]:
            del self._waiting[kind]
