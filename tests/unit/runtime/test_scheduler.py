"""The pool: order, bounds, deadlines, cancellation, draining."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from itertools import chain, repeat

import pytest

from confonnx.errors import DeadlineExceededError, InvalidInputError, OverloadedError
from confonnx.runtime.scheduler import Scheduler


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


class Gate:
    """Work that waits until it is let through; ``started`` counts how many began."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.started = threading.Semaphore(0)

    def __call__(self) -> str:
        self.started.release()
        assert self.opened.wait(20)
        return "through"


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_results_and_errors_come_back() -> None:
    async def test() -> None:
        scheduler = Scheduler(threads=2, max_queue=0)
        assert await scheduler.submit(lambda: 42) == 42
        assert await scheduler.submit(threading.get_ident) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await scheduler.submit(lambda: 1 // 0)
        with pytest.raises(TimeoutError, match="mine"):
            await scheduler.submit(raise_timeout, deadline=time.monotonic() + 10)
        assert await scheduler.close(timeout=5)

    run(test)


def raise_timeout() -> None:
    raise TimeoutError("mine")


def test_first_come_first_served_on_a_bounded_number_of_threads() -> None:
    async def test() -> None:
        scheduler = Scheduler(threads=2, max_queue=20)
        order: list[int] = []
        most = 0

        def work(number: int) -> None:
            nonlocal most
            order.append(number)
            most = max(most, scheduler.running)
            time.sleep(0.002)

        await asyncio.gather(*(scheduler.submit(partial(work, number)) for number in range(20)))
        assert sorted(order) == list(range(20))
        assert all(abs(place - number) <= 1 for place, number in enumerate(order))
        assert most == 2
        assert (scheduler.queued, scheduler.running) == (0, 0)

    run(test)


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async def test() -> None:
        scheduler, gate = Scheduler(threads=1, max_queue=2), Gate()
        await scheduler.submit(lambda: time.sleep(0.05))
        accepted = [asyncio.ensure_future(scheduler.submit(gate)) for _ in range(3)]
        await until(lambda: scheduler.running == 1 and scheduler.queued == 2)
        with pytest.raises(OverloadedError, match="3 requests are queued or running") as caught:
            await scheduler.submit(gate)
        assert 1 <= caught.value.retry_after <= 60
        gate.opened.set()
        assert await asyncio.gather(*accepted) == ["through"] * 3
        assert await scheduler.submit(lambda: "free again") == "free again"

    run(test)


def test_the_time_to_come_back_grows_with_what_runs_take() -> None:
    async def test() -> None:
        seconds, gate = chain([0.0, 0.0], repeat(4000.0)), Gate()  # at: accept, begin, end
        scheduler = Scheduler(threads=1, max_queue=0, clock=lambda: next(seconds))
        await scheduler.submit(lambda: None)
        task = asyncio.ensure_future(scheduler.submit(gate))
        await until(lambda: scheduler.running == 1)
        with pytest.raises(OverloadedError) as caught:
            await scheduler.submit(gate)
        assert caught.value.retry_after == 60
        gate.opened.set()
        await task

    run(test)


def test_work_whose_deadline_passes_in_the_queue_never_runs() -> None:
    async def test() -> None:
        scheduler, gate, ran = Scheduler(threads=1, max_queue=2), Gate(), threading.Event()
        first = asyncio.ensure_future(scheduler.submit(gate))
        await until(lambda: scheduler.running == 1)
        with pytest.raises(DeadlineExceededError, match="before the model answered"):
            await scheduler.submit(ran.set, deadline=time.monotonic() + 0.02)
        assert scheduler.queued == 0, "its place is free"
        gate.opened.set()
        await first
        await scheduler.submit(lambda: None)
        assert not ran.is_set()

    run(test)


def test_a_deadline_while_the_work_runs_aborts_it_and_keeps_its_thread_counted() -> None:
    async def test() -> None:
        clock, gate, aborted = Seconds(), Gate(), threading.Event()
        scheduler = Scheduler(threads=1, max_queue=0, clock=clock)
        task = asyncio.ensure_future(scheduler.submit(gate, deadline=0.02, abort=aborted.set))
        await until(lambda: scheduler.running == 1)
        clock.now = 1.0
        with pytest.raises(DeadlineExceededError):
            await task
        assert aborted.is_set()
        assert scheduler.running == 1
        with pytest.raises(OverloadedError):
            await scheduler.submit(lambda: None)
        gate.opened.set()
        await until(lambda: scheduler.running == 0)
        assert await scheduler.submit(lambda: 1) == 1

    run(test)


def test_a_deadline_that_has_passed_already() -> None:
    async def test() -> None:
        scheduler, ran = Scheduler(threads=1, max_queue=0), threading.Event()
        with pytest.raises(DeadlineExceededError, match="had passed when the request arrived"):
            await scheduler.submit(ran.set, deadline=time.monotonic() - 1)
        assert not ran.is_set()

    run(test)


def test_a_thread_does_not_begin_what_is_too_late_even_before_the_event_loop_notices() -> None:
    async def test() -> None:
        ran = threading.Event()

        def clock() -> float:
            return 0.0 if threading.current_thread() is threading.main_thread() else 10.0

        scheduler = Scheduler(threads=1, max_queue=0, clock=clock)
        with pytest.raises(DeadlineExceededError, match="while the request was queued"):
            await scheduler.submit(ran.set, deadline=5)
        scheduler = Scheduler(threads=1, max_queue=0, max_wait=4, clock=clock)
        with pytest.raises(OverloadedError, match="more is asked"):
            await scheduler.submit(ran.set, deadline=50)
        assert not ran.is_set()

    run(test)


def test_the_first_step_needs_no_task() -> None:
    """The front runs a handler's first step in a callback, and makes a task only if it waits."""

    async def test() -> None:
        scheduler, gate = Scheduler(threads=1, max_queue=1), Gate()
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[str] = loop.create_future()

        def first_step() -> None:
            assert asyncio.current_task() is None
            coroutine = scheduler.submit(gate, deadline=time.monotonic() + 10)
            waiter = coroutine.send(None)
            assert asyncio.isfuture(waiter)
            waiter.add_done_callback(partial(last_step, coroutine))

        def last_step(coroutine: Coroutine[object, None, str], waiter: asyncio.Future[object]) -> None:
            with pytest.raises(StopIteration) as caught:
                coroutine.send(None)
            finished.set_result(caught.value.value)

        loop.call_soon(first_step)
        gate.opened.set()
        assert await finished == "through"

    run(test)


def test_a_caller_that_is_closed_drops_its_work() -> None:
    async def test() -> None:
        scheduler, gate, ran = Scheduler(threads=1, max_queue=1), Gate(), threading.Event()
        running = asyncio.ensure_future(scheduler.submit(gate))
        await until(lambda: scheduler.running == 1)
        queued = scheduler.submit(ran.set)
        queued.send(None)
        assert scheduler.queued == 1
        queued.close()
        assert scheduler.queued == 0
        gate.opened.set()
        await running
        assert await scheduler.close(timeout=5)
        assert not ran.is_set()

    run(test)


def test_nothing_keeps_a_request_that_failed() -> None:
    class Payload:
        pass

    async def test() -> weakref.ref[Payload]:
        scheduler = Scheduler(threads=1, max_queue=0)
        payload = [Payload()]
        seen = weakref.ref(payload[0])

        def fail(request: list[Payload]) -> None:
            held = request.pop()
            raise InvalidInputError(f"not {type(held).__name__}")

        with suppress(InvalidInputError):
            await scheduler.submit(partial(fail, payload))
        await scheduler.submit(lambda: None)  # by now the thread has left the first one behind
        return seen

    gc.disable()  # what is freed below is freed because nothing refers to it
    try:
        assert asyncio.run(test())() is None
    finally:
        gc.enable()


def test_a_caller_that_goes_away_drops_its_work() -> None:
    async def test() -> None:
        scheduler, gate = Scheduler(threads=1, max_queue=1), Gate()
        ran, aborted = threading.Event(), threading.Event()
        running = asyncio.ensure_future(scheduler.submit(gate, abort=aborted.set))
        await until(lambda: scheduler.running == 1)
        queued = asyncio.ensure_future(scheduler.submit(ran.set))
        await until(lambda: scheduler.queued == 1)
        for task in (queued, running):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert aborted.is_set()
        gate.opened.set()
        await until(lambda: scheduler.running == 0)
        assert not ran.is_set()

    run(test)


def test_errors_of_abandoned_work_disappear_quietly(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        scheduler, gate = Scheduler(threads=1, max_queue=0), Gate()

        def fail() -> None:
            gate()
            raise ValueError("tensor data that nobody may log")

        with pytest.raises(DeadlineExceededError):
            await scheduler.submit(fail, deadline=time.monotonic() + 0.02)
        gate.opened.set()
        assert await scheduler.close(timeout=5)
        await asyncio.sleep(0.01)

    run(test)
    assert caplog.records == []


def test_closing_waits_for_what_was_accepted() -> None:
    async def test() -> None:
        scheduler, gate = Scheduler(threads=1, max_queue=1), Gate()
        tasks = [asyncio.ensure_future(scheduler.submit(gate)) for _ in range(2)]
        await until(lambda: scheduler.running == 1 and scheduler.queued == 1)
        closing = asyncio.ensure_future(scheduler.close(timeout=10))
        await asyncio.sleep(0.01)
        with pytest.raises(OverloadedError, match="shutting down"):
            await scheduler.submit(lambda: None)
        gate.opened.set()
        assert await closing
        assert await asyncio.gather(*tasks) == ["through"] * 2

    run(test)


def test_closing_gives_up_after_the_time_out() -> None:
    async def test() -> None:
        scheduler, gate = Scheduler(threads=1, max_queue=1), Gate()
        running = asyncio.ensure_future(scheduler.submit(gate, abort=gate.opened.set))
        await until(lambda: scheduler.running == 1)
        ran = threading.Event()
        queued = asyncio.ensure_future(scheduler.submit(ran.set))
        await until(lambda: scheduler.queued == 1)
        assert not await scheduler.close(timeout=0.02)
        with pytest.raises(OverloadedError, match="shutting down"):
            await queued
        assert await running == "through", "the abort let it end"
        assert not ran.is_set()

    run(test)


@pytest.mark.parametrize(("threads", "max_queue"), [(0, 1), (1, -1)])
def test_sizes_are_checked(threads: int, max_queue: int) -> None:
    with pytest.raises(ValueError, match=f"threads={threads} must be at least 1, max_queue={max_queue}"):
        Scheduler(threads=threads, max_queue=max_queue)


class Seconds:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def took(scheduler: Scheduler, clock: Seconds, kind: str, seconds: float) -> None:
    """A run of ``kind`` that takes ``seconds`` of the clock."""

    def work() -> None:
        clock.now += seconds

    await scheduler.submit(work, kind=kind)


def test_what_would_miss_its_deadline_is_refused_at_once() -> None:
    async def test() -> None:
        clock, gate = Seconds(), Gate()
        scheduler = Scheduler(threads=1, max_queue=10, clock=clock)
        await took(scheduler, clock, "slow", 4.0)
        running = asyncio.ensure_future(scheduler.submit(gate, kind="slow"))
        await until(lambda: scheduler.running == 1)
        # Half a run is before it, and its own takes four seconds.
        with pytest.raises(OverloadedError, match="more is asked") as caught:
            await scheduler.submit(gate, kind="slow", deadline=clock.now + 5.9)
        assert caught.value.retry_after == 2
        queued = asyncio.ensure_future(scheduler.submit(gate, kind="slow", deadline=clock.now + 6.1))
        await until(lambda: scheduler.queued == 1)
        gate.opened.set()
        assert [await running, await queued] == ["through"] * 2

    run(test)


def test_nothing_is_refused_where_nothing_is_in_the_way() -> None:
    """Else a model that was slow once would be refused for ever, since only runs correct the mean."""

    async def test() -> None:
        clock = Seconds()
        scheduler = Scheduler(threads=1, max_queue=10, max_wait=1.0, clock=clock)
        await took(scheduler, clock, "slow", 4000.0)
        assert await scheduler.submit(lambda: "tried", kind="slow", deadline=clock.now + 1) == "tried"

    run(test)


def is_filled(scheduler: Scheduler, number: int) -> bool:
    return scheduler.running + scheduler.queued == number


def test_what_would_wait_too_long_is_refused_at_once() -> None:
    async def test() -> None:
        clock, gate = Seconds(), Gate()
        scheduler = Scheduler(threads=1, max_queue=10, max_wait=3.0, clock=clock)
        await took(scheduler, clock, "slow", 4.0)
        accepted = []
        for number in range(2):
            accepted.append(asyncio.ensure_future(scheduler.submit(gate, kind="slow")))
            await until(partial(is_filled, scheduler, number + 1))
        with pytest.raises(OverloadedError) as caught:
            await scheduler.submit(gate, kind="slow")
        assert caught.value.retry_after == 6  # one that waits, and half of one that runs
        gate.opened.set()
        assert await asyncio.gather(*accepted) == ["through"] * 2

    run(test)


def test_what_did_not_begin_in_time_is_refused_then() -> None:
    """The estimate may be wrong; the bound holds all the same."""

    async def test() -> None:
        gate, ran = Gate(), threading.Event()
        scheduler = Scheduler(threads=1, max_queue=10, max_wait=0.02, clock=Seconds())
        running = asyncio.ensure_future(scheduler.submit(gate, deadline=60))
        await until(lambda: scheduler.running == 1)
        with pytest.raises(OverloadedError, match="more is asked") as caught:
            await scheduler.submit(ran.set, deadline=60)
        assert caught.value.retry_after == 1
        assert scheduler.queued == 0
        assert not running.done(), "what had begun goes on to its own deadline"
        gate.opened.set()
        assert await running == "through"
        assert not ran.is_set()

    run(test)


def test_a_run_that_began_in_time_has_until_its_deadline() -> None:
    async def test() -> None:
        clock, gate, aborted = Seconds(), Gate(), threading.Event()
        scheduler = Scheduler(threads=1, max_queue=0, max_wait=0.01, clock=clock)
        task = asyncio.ensure_future(scheduler.submit(gate, deadline=0.02, abort=aborted.set))
        await until(lambda: scheduler.running == 1)
        await asyncio.sleep(0.05)  # both timers have fired meanwhile, by a clock that stood still
        assert not task.done()
        clock.now = 1.0
        with pytest.raises(DeadlineExceededError):
            await task
        assert aborted.is_set()
        gate.opened.set()

    run(test)


def test_short_work_does_not_wait_for_long_work() -> None:
    async def test() -> None:
        clock, gate = Seconds(), Gate()
        scheduler = Scheduler(threads=2, max_queue=10, clock=clock)
        await took(scheduler, clock, "long", 5.0)
        await took(scheduler, clock, "short", 0.5)
        long = [asyncio.ensure_future(scheduler.submit(gate, kind="long")) for _ in range(4)]
        await until(lambda: scheduler.running == 2)
        for number in range(5):
            assert await scheduler.submit(partial(int, number), kind="short") == number
        assert not any(each.done() for each in long)
        assert scheduler.queued == 2
        gate.opened.set()
        assert await asyncio.gather(*long) == ["through"] * 4

    run(test)


def test_the_thread_beside_the_others_is_one() -> None:
    async def test() -> None:
        clock, gate = Seconds(), Gate()
        scheduler = Scheduler(threads=1, max_queue=10, clock=clock)
        await took(scheduler, clock, "long", 5.0)
        await took(scheduler, clock, "short", 0.5)
        tasks = [asyncio.ensure_future(scheduler.submit(gate, kind="long"))]
        await until(lambda: scheduler.running == 1)
        tasks += [asyncio.ensure_future(scheduler.submit(gate, kind="short")) for _ in range(3)]
        await until(lambda: scheduler.running == 2)
        assert scheduler.queued == 2
        gate.opened.set()
        assert await asyncio.gather(*tasks) == ["through"] * 4

    run(test)
