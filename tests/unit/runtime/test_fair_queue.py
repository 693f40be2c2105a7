"""The policy's numbers: means, waits, what is short."""

from __future__ import annotations

import pytest

from confonnx.runtime.fair_queue import FairQueue


def ran(queue: FairQueue[str], kind: str, *seconds: float) -> None:
    for each in seconds:
        queue.push(kind, kind)
        assert queue.pop() == kind
        queue.done(kind, each, short=False)


def test_the_mean_moves_with_what_runs_take() -> None:
    queue = FairQueue[str](threads=1)
    assert queue.mean("a") == 0
    ran(queue, "a", 8.0)
    assert queue.mean("a") == 8.0
    ran(queue, "a", 16.0)
    assert queue.mean("a") == 9.0
    assert queue.mean("never ran") == 9.0, "as the slowest"


def test_what_waits_and_half_of_what_runs_come_first() -> None:
    queue = FairQueue[str](threads=2)
    ran(queue, "a", 4.0)
    ran(queue, "b", 1.0)
    assert queue.expected_wait("a") == 0
    for _ in range(6):
        queue.push("a", "a")
    for _ in range(2):
        queue.pop()
    assert queue.expected_wait("a") == (4 * 4.0 + 2 * 4.0 / 2) / 2
    # A kind that waits alone has nothing of its own before it, and takes turns with the others.
    assert queue.expected_wait("b") == (0 + 2 * 4.0 / 2) / 2
    queue.push("b", "b")
    assert queue.expected_wait("b") == (1.0 * 2 + 2 * 4.0 / 2) / 2


def test_short_is_what_is_far_shorter_than_all_that_runs() -> None:
    queue = FairQueue[str](threads=2)
    ran(queue, "long", 10.0)
    ran(queue, "short", 1.0)
    ran(queue, "middle", 1.1)
    for _ in range(2):
        queue.push("long", "long")
    queue.pop()
    assert not queue.is_short("short"), "a thread is free"
    queue.pop()
    assert queue.is_short("short")
    assert not queue.is_short("middle")
    assert not queue.is_short("never ran")
    queue.push("middle", "middle")
    assert queue.pop_short() is None
    queue.push("short", "short")
    assert queue.pop_short() == "short"
    queue.done("short", 1.0, short=True)
    queue.done("long", 10.0, short=False)
    assert not queue.is_short("short")


def test_a_short_run_beside_a_short_one_is_none() -> None:
    queue = FairQueue[str](threads=2)
    ran(queue, "long", 10.0)
    ran(queue, "short", 1.0)
    queue.push("long", "long")
    queue.push("short", "short")
    assert {queue.pop(), queue.pop()} == {"long", "short"}
    assert not queue.is_short("short")


def test_time_on_the_tab_counts_for_a_kind_that_comes_back() -> None:
    queue = FairQueue[str](threads=1)
    ran(queue, "a", 1.0, 1.0, 1.0)
    queue.push("b", "b")  # new, and begins where "a" was chosen last, not at zero
    queue.push("a", "a")
    assert [queue.pop(), queue.pop(), queue.pop()] == ["b", "a", None]


def test_removing_what_does_not_wait() -> None:
    queue = FairQueue[str](threads=1)
    assert not queue.remove("a", "a")
    queue.push("a", "a")
    assert not queue.remove("a", "other")
    assert queue.remove("a", "a")
    assert queue.pop() is None


@pytest.mark.parametrize("threads", [1, 3])
def test_a_free_thread_means_no_wait_whatever_runs_took(threads: int) -> None:
    queue = FairQueue[str](threads=threads)
    ran(queue, "a", 1000.0)
    assert queue.expected_wait("a") == 0
