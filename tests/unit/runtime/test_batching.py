"""Requests in one run: who shares it, who gets what, and whose fault stays whose."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest

from confonnx.errors import (
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    OverloadedError,
    TooLargeError,
)
from confonnx.oip.values import Value
from confonnx.runtime.batching import Batcher, BatchOptions, Observers
from confonnx.runtime.scheduler import Scheduler
from confonnx.runtime.session import Session

POISON = 666.0


class Doubling:
    """Stands for a model, ``y = 2 x``: notes the rows of its runs, and fails where a row is poisoned."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.wanted: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.rows_lost = 0

    def run(
        self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None, *, abort: Any = None
    ) -> dict[str, Value]:
        while not self.gate.wait(0.005):
            if abort.requested:
                raise InferenceError("the run was ended before it was done")
        x = np.asarray(inputs["x"])
        self.runs.append(len(x))
        self.wanted.append(list(outputs or ()))
        if (x == POISON).any():
            raise InferenceError(f"poisoned, with {len(x)} rows")
        return {"y": (2 * x)[: len(x) - self.rows_lost]}


class Bench:
    """A batcher, the scheduler behind it, and what was observed."""

    def __init__(self, *, size: int = 8, delay_us: int = 0, max_wait: float = 60.0) -> None:
        self.model = Doubling()
        # Nothing is late by a clock that stands still; what waits for max_wait is told by a timer.
        self.scheduler = Scheduler(threads=1, max_queue=10, max_wait=max_wait, clock=lambda: 0.0)
        self.waited: list[float] = []
        self.ran: list[float] = []
        self.batcher: Batcher[Any] = Batcher(
            cast(Session, self.model),
            BatchOptions(size, delay_us),
            scheduler=self.scheduler,
            kind="m",
            observers=Observers(self.waited.append, self.ran.append),
        )

    def ask(
        self,
        *values: float,
        wanted: Sequence[str] = (),
        seconds: float = 20,
        width: int = 1,
        finish: Any = None,
    ) -> asyncio.Task[Any]:
        """A request with a row for each of ``values``."""
        x = np.repeat(np.array(values, np.float32)[:, None], width, axis=1)
        run = self.batcher.run(
            {"x": x}, list(wanted), finish or (lambda answer: answer), deadline=time.monotonic() + seconds
        )
        return asyncio.ensure_future(run)

    async def occupied(self) -> Occupant:
        """The one thread is busy, so what is asked waits."""
        occupant = Occupant()
        occupant.task = asyncio.ensure_future(self.scheduler.submit(occupant.work, kind="other"))
        await until(lambda: self.scheduler.running == 1)
        return occupant


class Occupant:
    """Work that ends when it is told to."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.task: asyncio.Future[None]

    def work(self) -> None:
        assert self.opened.wait(20)

    async def leave(self) -> None:
        self.opened.set()
        await self.task


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def settled() -> None:
    """Tasks that were made have run up to where they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


def rows(answer: Any) -> list[float]:
    return [float(value) for value in answer["y"][:, 0]]


def test_a_request_alone_does_not_wait_for_others() -> None:
    async def test() -> None:
        bench = Bench()
        assert rows(await bench.ask(1, 2)) == [2, 4]
        assert bench.model.runs == [2]
        assert (len(bench.waited), len(bench.ran)) == (1, 1)

    run(test)


def test_what_waits_at_the_same_time_runs_together_and_each_gets_its_own() -> None:
    async def test() -> None:
        bench = Bench()
        occupant = await bench.occupied()
        asked = [bench.ask(1), bench.ask(2, 3), bench.ask(4)]
        await settled()
        assert bench.scheduler.queued == 1
        await occupant.leave()
        answers = await asyncio.gather(*asked)
        assert [rows(answer) for answer in answers] == [[2], [4, 6], [8]]
        assert bench.model.runs == [4]
        assert all(answer["y"].base is None for answer in answers), "nobody holds another's rows"
        assert (len(bench.waited), len(bench.ran)) == (3, 1)

    run(test)


def test_a_batch_has_no_more_rows_than_it_may() -> None:
    async def test() -> None:
        bench = Bench(size=4)
        occupant = await bench.occupied()
        asked = [bench.ask(*range(count)) for count in (2, 1, 3, 1, 4, 5)]
        await settled()
        await occupant.leave()
        answers = await asyncio.gather(*asked)
        assert [len(rows(answer)) for answer in answers] == [2, 1, 3, 1, 4, 5]
        assert sorted(bench.model.runs) == [3, 4, 4, 5], "what is larger than a batch runs alone"

    run(test)


def test_requests_of_other_shapes_types_or_outputs_run_apart() -> None:
    async def test() -> None:
        bench = Bench()
        occupant = await bench.occupied()
        asked = [bench.ask(1), bench.ask(1, width=2), bench.ask(1, wanted=["y"]), bench.ask(2, wanted=["y"])]
        integers = bench.batcher.run(
            {"x": np.array([[7]])}, [], lambda answer: answer, deadline=time.monotonic() + 20
        )
        asked.append(asyncio.ensure_future(integers))
        await settled()
        await occupant.leave()
        assert [rows(answer) for answer in await asyncio.gather(*asked)] == [[2], [2], [2], [4], [14]]
        assert sorted(bench.model.runs) == [1, 1, 1, 2]
        assert bench.model.wanted[bench.model.runs.index(2)] == ["y"]

    run(test)


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": np.ones((2, 1), np.float32), "z": np.ones((3, 1), np.float32)},
        {"x": np.ones((0, 1), np.float32)},
        {"x": np.ones((1, 1), np.float32), "z": np.array(5)},
    ],
)
def test_inputs_without_common_rows_run_alone(inputs: dict[str, Value]) -> None:
    async def test() -> None:
        bench = Bench()
        answer = await bench.batcher.run(inputs, [], lambda got: got, deadline=time.monotonic() + 20)
        assert len(answer["y"]) == len(np.asarray(inputs["x"]))

    run(test)


def test_a_batch_may_wait_for_others_and_is_full_at_once() -> None:
    async def test() -> None:
        bench = Bench(size=3, delay_us=10_000_000)
        asked = [bench.ask(1), bench.ask(2)]
        await settled()
        assert bench.scheduler.queued + bench.scheduler.running == 0
        asked.append(bench.ask(3))
        assert [rows(answer) for answer in await asyncio.gather(*asked)] == [[2], [4], [6]]
        assert bench.model.runs == [3]
        bench = Bench(size=3, delay_us=1000)
        assert rows(await bench.ask(1)) == [2]

    run(test)


def test_a_bad_request_fails_alone() -> None:
    async def test() -> None:
        bench = Bench()
        occupant = await bench.occupied()
        asked = [bench.ask(1), bench.ask(POISON), bench.ask(3)]
        await settled()
        await occupant.leave()
        good, bad, other = await asyncio.gather(*asked, return_exceptions=True)
        assert (rows(good), rows(other)) == ([2], [6])
        assert isinstance(bad, InferenceError)
        assert str(bad) == "poisoned, with 1 rows"
        assert bench.model.runs == [3, 1, 1, 1]

    run(test)


def test_a_bad_request_that_is_alone_is_not_run_again() -> None:
    async def test() -> None:
        bench = Bench()
        with pytest.raises(InferenceError, match="poisoned"):
            await bench.ask(POISON)
        assert bench.model.runs == [1]

    run(test)


def test_an_answer_that_cannot_be_written_fails_alone() -> None:
    async def test() -> None:
        bench = Bench()

        def fail(answer: dict[str, Value]) -> None:
            raise TooLargeError("the answer is too large")

        occupant = await bench.occupied()
        asked = [bench.ask(1), bench.ask(2, finish=fail)]
        await settled()
        await occupant.leave()
        good, bad = await asyncio.gather(*asked, return_exceptions=True)
        assert rows(good) == [2]
        assert isinstance(bad, TooLargeError)
        assert bench.model.runs == [2]

    run(test)


def test_an_answer_with_another_number_of_rows_is_given_to_nobody() -> None:
    async def test() -> None:
        bench = Bench()
        bench.model.rows_lost = 1
        occupant = await bench.occupied()
        asked = [bench.ask(1, 2), bench.ask(3, 4)]
        await settled()
        await occupant.leave()
        answers = await asyncio.gather(*asked)
        assert [rows(answer) for answer in answers] == [[2], [6]], "as each would get alone"
        assert bench.model.runs == [4, 2, 2]

    run(test)


def test_who_gives_up_leaves_and_the_others_stay() -> None:
    async def test() -> None:
        bench = Bench()
        occupant = await bench.occupied()
        stays, leaves, late = bench.ask(1), bench.ask(2), bench.ask(3, seconds=0.01)
        await settled()
        leaves.cancel()
        with pytest.raises(DeadlineExceededError, match="before the model answered"):
            await late
        await occupant.leave()
        assert rows(await stays) == [2]
        assert bench.model.runs == [1]
        assert leaves.cancelled()

    run(test)


def test_the_last_to_leave_ends_the_run() -> None:
    async def test() -> None:
        bench = Bench()
        bench.model.gate.clear()
        asked = [bench.ask(1, seconds=0.05)]
        with pytest.raises(DeadlineExceededError):
            await asked[0]
        await until(lambda: bench.scheduler.running == 0)
        assert bench.model.runs == [], "it was aborted, not let through"

    run(test)


def test_a_batch_that_all_left_never_runs() -> None:
    async def test() -> None:
        for delay_us in (0, 10_000_000):
            bench = Bench(delay_us=delay_us)
            occupant = await bench.occupied()
            asked = [bench.ask(1), bench.ask(2)]
            await settled()
            for task in asked:
                task.cancel()
            await settled()
            assert bench.scheduler.queued == 0
            fresh = bench.ask(3, 4, 5, 6, 7, 8, 9, 10)
            await settled()
            await occupant.leave()
            assert len(rows(await fresh)) == 8
            assert bench.model.runs == [8]

    run(test)


def test_what_the_scheduler_refuses_is_refused_for_all() -> None:
    async def test() -> None:
        bench = Bench(max_wait=0.02)
        occupant = await bench.occupied()
        asked = [bench.ask(1), bench.ask(2)]
        refused = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(error, OverloadedError) for error in refused)
        await occupant.leave()
        assert rows(await bench.ask(5)) == [10]

    run(test)


def test_nothing_keeps_a_request_that_was_answered_or_failed() -> None:
    async def test() -> list[weakref.ref[Any]]:
        bench = Bench()
        seen = []
        for value in (1.0, POISON):
            x = np.array([[value]], np.float32)
            seen.append(weakref.ref(x))
            run_ = bench.batcher.run({"x": x}, [], lambda answer: None, deadline=time.monotonic() + 20)
            del x
            try:
                await run_
            except InferenceError:
                assert value == POISON
        await bench.scheduler.submit(lambda: None)  # by now the thread has left the others behind
        await settled()
        return seen

    gc.disable()  # what is freed below is freed because nothing refers to it
    try:
        assert [reference() for reference in asyncio.run(test())] == [None, None]
    finally:
        gc.enable()


def test_an_error_in_the_inputs_of_a_batch_is_each_ones_own() -> None:
    async def test() -> None:
        bench = Bench()

        def refuse(*_: Any, **__: Any) -> dict[str, Value]:
            raise InvalidInputError("the model has no output 'z'")

        bench.model.run = refuse  # type: ignore[method-assign]
        occupant = await bench.occupied()
        asked = [bench.ask(1, wanted=["z"]), bench.ask(2, wanted=["z"])]
        await settled()
        await occupant.leave()
        for error in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(error, InvalidInputError)

    run(test)
