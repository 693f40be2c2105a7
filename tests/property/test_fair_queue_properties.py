"""The scheduler's policy: nothing is lost or starved, and kinds share by time, whatever comes when."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from confonnx.runtime.fair_queue import SHORT, FairQueue

KINDS = ("a", "b", "c", "d")
THREADS = 2
SECONDS = st.floats(min_value=1e-6, max_value=100)


class Queue(RuleBasedStateMachine):
    """A queue beside the simplest model of it: lists of what waits and what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue[tuple[str, int]](threads=THREADS)
        self.waiting: list[tuple[str, int]] = []
        self.running: list[tuple[str, bool]] = []
        self.number = 0

    @rule(kind=st.sampled_from(KINDS))
    def push(self, kind: str) -> None:
        self.number += 1
        self.waiting.append((kind, self.number))
        self.queue.push(kind, (kind, self.number))

    @precondition(lambda self: sum(not short for _, short in self.running) < THREADS)
    @rule()
    def pop(self) -> None:
        item = self.queue.pop()
        assert (item is None) == (not self.waiting), "it gives something wherever something waits"
        if item is not None:
            self.takes(item, short=False)

    @rule()
    def pop_short(self) -> None:
        item = self.queue.pop_short()
        if item is not None:
            regular = [kind for kind, short in self.running if not short]
            assert len(regular) == THREADS, "only beside busy threads"
            assert self.queue.mean(item[0]) * SHORT <= min(map(self.queue.mean, regular))
            self.takes(item, short=True)

    def takes(self, item: tuple[str, int], *, short: bool) -> None:
        assert item == next(other for other in self.waiting if other[0] == item[0]), (
            "first come, first served"
        )
        self.waiting.remove(item)
        self.running.append((item[0], short))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), seconds=SECONDS)
    def done(self, data: st.DataObject, seconds: float) -> None:
        kind, short = data.draw(st.sampled_from(self.running))
        self.running.remove((kind, short))
        self.queue.done(kind, seconds, short=short)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(item)
        assert self.queue.remove(item[0], item)
        assert not self.queue.remove(item[0], item)

    @invariant()
    def counts(self) -> None:
        assert len(self.queue) == len(self.waiting)

    @invariant()
    def waits_only_for_something(self) -> None:
        regular = sum(not short for _, short in self.running)
        for kind in KINDS:
            wait = self.queue.expected_wait(kind)
            assert wait >= 0
            if len(self.waiting) + regular < THREADS:
                assert wait == 0


TestQueue = Queue.TestCase
TestQueue.settings = settings(deadline=None)


def measured(means: dict[str, float]) -> FairQueue[str]:
    """A queue of one thread that knows how long each kind runs."""
    queue = FairQueue[str](threads=1)
    for kind, seconds in means.items():
        queue.push(kind, kind)
        assert queue.pop() == kind
        queue.done(kind, seconds, short=False)
    return queue


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KINDS), SECONDS, min_size=2), st.integers(1, 400))
def test_kinds_that_always_wait_get_the_same_time_within_one_run_of_each(
    means: dict[str, float], runs: int
) -> None:
    queue = measured(means)
    for each in means:
        queue.push(each, each)
    given_ = dict.fromkeys(means, 0.0)
    start: dict[str, float] | None = None
    for _ in range(runs):
        kind = queue.pop()
        assert kind is not None
        queue.push(kind, kind)  # it always waits
        queue.done(kind, means[kind], short=False)
        given_[kind] += means[kind]
        if start is None and all(given_.values()):
            start = dict(given_)  # from here on all have waited together
    if start is not None:
        shares = [given_[each] - start[each] for each in means]
        assert max(shares) - min(shares) <= 2 * sum(means.values()) + 1e-6


@settings(deadline=None)
@given(SECONDS, st.lists(st.sampled_from(KINDS[1:]), min_size=1, max_size=50))
def test_whoever_waits_is_next_after_bounded_work_of_the_others(slow: float, others: list[str]) -> None:
    """The others push again whenever they are served: for ever, if the queue let them."""
    queue = measured({"a": slow, **dict.fromkeys(KINDS[1:], slow / 50)})
    for each in others:
        queue.push(each, each)
    queue.push("a", "a")
    served: Counter[str] = Counter()
    while (kind := queue.pop()) != "a":
        assert kind is not None
        served[kind] += 1
        queue.push(kind, kind)
        queue.done(kind, slow / 50, short=False)
        # Each of the three may catch up with the tab that "a" brought, of one run, and not more.
        assert served[kind] <= 2 * 50 + len(others) + 2


def test_a_short_kind_comes_before_the_rest_of_a_long_queue() -> None:
    queue = measured({"a": 10.0, "b": 0.01})
    for _ in range(5):
        queue.push("a", "a")
    first = queue.pop()
    queue.push("b", "b")
    assert (first, queue.pop()) == ("a", "b")
