"""Who goes forward when, of the requests that arrived together."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from confonnx.ohttp.encapsulation import ResponseSealer, open_request
from confonnx.server import app
from confonnx.server.cohort import Cohort, Work, end_of_stage
from confonnx.server.messages import HttpRequest, HttpResponse
from confonnx.server.routes import Routes
from tests.unit.server.harness import GatedSession, Gateway, gated_model

STAGES = ("open", "run", "seal")


class Steps:
    """A cohort, what its answers did in which order, and what became of them."""

    def __init__(self) -> None:
        self.cohort = Cohort()
        self.order: list[tuple[str, int]] = []
        self.done: list[tuple[int, int | None]] = []

    async def answer(self, number: int) -> HttpResponse:
        for stage in STAGES[:-1]:
            self.order.append((stage, number))
            await end_of_stage()
        self.order.append((STAGES[-1], number))
        return HttpResponse(200 + number)

    def start(
        self,
        number: int,
        answer: Callable[[int], Awaitable[HttpResponse]] | None = None,
        *,
        size: int = 65536,
    ) -> Work:
        async def work() -> HttpResponse:
            return await (answer or self.answer)(number)

        def done(response: HttpResponse | None) -> None:
            self.done.append((number, None if response is None else response.status))

        started = Work(work(), done, size=size)
        self.cohort.add(started)
        return started


def in_turns(scenario: Callable[[Steps], Awaitable[None]]) -> Steps:
    """``scenario``, and two turns of the event loop after it."""
    steps = Steps()

    async def run() -> None:
        await scenario(steps)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(run())
    return steps


def test_all_that_arrived_end_a_stage_before_one_begins_the_next() -> None:
    async def scenario(steps: Steps) -> None:
        for number in range(3):
            steps.start(number)
        assert steps.order == []  # nothing happens while others may still arrive
        await asyncio.sleep(0)
        assert steps.order == [(stage, number) for stage in STAGES for number in range(3)]
        assert steps.done == [(0, 200), (1, 201), (2, 202)]

    in_turns(scenario)


def test_answers_may_have_different_numbers_of_stages() -> None:
    async def at_once(number: int) -> HttpResponse:
        return HttpResponse(400 + number)

    async def scenario(steps: Steps) -> None:
        steps.start(0)
        steps.start(1, at_once)
        steps.start(2)

    assert in_turns(scenario).done == [(1, 401), (0, 200), (2, 202)]


def test_a_large_one_waits_for_nobody() -> None:
    async def scenario(steps: Steps) -> None:
        steps.start(0)
        steps.start(1, size=65537)
        assert steps.order == [(stage, 1) for stage in STAGES]
        assert steps.done == [(1, 201)]

    assert in_turns(scenario).done == [(1, 201), (0, 200)]


def test_a_cohort_has_a_size_and_the_others_go_next() -> None:
    async def scenario(steps: Steps) -> None:
        for number in range(70):
            steps.start(number)
        for last in (32, 64, 70):
            await asyncio.sleep(0)
            assert steps.done == [(number, 200 + number) for number in range(last)]

    assert in_turns(scenario).order == [
        (stage, number)
        for first, last in ((0, 32), (32, 64), (64, 70))
        for stage in STAGES
        for number in range(first, last)
    ]


def test_what_arrives_during_a_turn_goes_in_the_next() -> None:
    async def scenario(steps: Steps) -> None:
        async def brings_another(number: int) -> HttpResponse:
            steps.start(1)
            return await steps.answer(number)

        steps.start(0, brings_another)

    assert in_turns(scenario).order == [(stage, number) for number in range(2) for stage in STAGES]


@pytest.mark.parametrize("error", [ValueError("broken"), asyncio.CancelledError()])
def test_one_that_raises_holds_up_nobody(error: BaseException) -> None:
    reports: list[dict[str, Any]] = []

    async def breaks(_: int) -> HttpResponse:
        await end_of_stage()
        raise error

    async def scenario(steps: Steps) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        steps.start(0)
        steps.start(1, breaks)
        steps.start(2)

    assert in_turns(scenario).done == [(1, None), (0, 200), (2, 202)]
    assert [report["exception"] for report in reports] == [error]


def test_an_answer_that_cannot_be_sent_holds_up_nobody() -> None:
    reports: list[dict[str, Any]] = []
    told: list[HttpResponse | None] = []

    def cannot(response: HttpResponse | None) -> None:
        told.append(response)
        if response is not None:
            raise OSError("gone")

    async def scenario(steps: Steps) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        steps.cohort.add(Work(steps.answer(0), cannot, size=1))
        steps.start(1)

    assert in_turns(scenario).done == [(1, 201)]
    assert told == [HttpResponse(200), None]
    assert [str(report["exception"]) for report in reports] == ["gone"]


def test_whoever_stops_the_process_is_not_held_up() -> None:
    async def stops(_: int) -> HttpResponse:
        raise KeyboardInterrupt

    async def scenario(steps: Steps) -> None:
        steps.start(0, stops)

    with pytest.raises(KeyboardInterrupt):
        in_turns(scenario)


def test_one_that_waits_goes_on_in_a_task_of_its_own_and_through_all_its_stages_at_once() -> None:
    async def scenario(steps: Steps) -> None:
        event = asyncio.Event()
        tasks: list[object] = []

        async def waits(number: int) -> HttpResponse:
            await event.wait()
            tasks.append(asyncio.current_task())
            return await steps.answer(number)

        steps.start(0, waits)
        steps.start(1)
        await asyncio.sleep(0)
        assert steps.done == [(1, 201)]
        await asyncio.sleep(0)
        steps.order.clear()
        event.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert steps.order == [(stage, 0) for stage in STAGES]
        assert steps.done == [(1, 201), (0, 200)]
        assert tasks[0] is not asyncio.current_task()

    in_turns(scenario)


def test_what_was_waited_for_is_let_go() -> None:
    """It may be all that holds a large request, whose buffer the answer is to be sealed into."""

    async def scenario(steps: Steps) -> None:
        alive: list[bool] = []

        async def waits(number: int) -> HttpResponse:
            for _ in range(3):
                waited = asyncio.get_running_loop().create_future()
                seen = weakref.ref(waited)
                asyncio.get_running_loop().call_soon(waited.set_result, None)
                await waited
                del waited
                await asyncio.wait({asyncio.ensure_future(asyncio.sleep(0))})
                alive.append(seen() is not None)
            return HttpResponse(200 + number)

        steps.start(0, waits)
        while not steps.done:
            await asyncio.sleep(0)
        assert alive == [False] * 3

    in_turns(scenario)


def test_one_that_nobody_wants_any_more_is_never_begun() -> None:
    async def scenario(steps: Steps) -> None:
        steps.start(0).cancel()
        steps.start(1)

    steps = in_turns(scenario)
    assert steps.order == [(stage, 1) for stage in STAGES]
    assert steps.done == [(1, 201)]


def test_one_that_waits_for_nobody_is_cancelled() -> None:
    async def scenario(steps: Steps) -> None:
        async def waits(_: int) -> HttpResponse:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                steps.order.append(("ended", 0))
            raise AssertionError

        work = steps.start(0, waits)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        work.cancel()

    steps = in_turns(scenario)
    assert steps.order == [("ended", 0)]
    assert steps.done == [(0, None)]


# The application's stages.


def _posts(gateway: Gateway, messages: list[bytes]) -> list[HttpResponse]:
    """The answers to ``messages``, which arrive together."""
    found: dict[int, HttpResponse | None] = {}

    async def scenario() -> None:
        cohort = Cohort()
        for number, message in enumerate(messages):
            request = HttpRequest("POST", "/ohttp", {"content-type": "message/ohttp-req"}, bytearray(message))
            done = partial(found.__setitem__, number)
            cohort.add(Work(gateway.app.handle(request), done, size=len(message)))
        await asyncio.sleep(0)

    asyncio.run(scenario())
    return [response for _, response in sorted(found.items()) if response is not None]


def test_requests_are_all_opened_before_one_is_answered_and_all_answered_before_one_is_sealed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            order.append(name)
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(app, "open_request", noted("open", open_request))
    monkeypatch.setattr(Routes, "answer", noted("answer", Routes.answer))
    monkeypatch.setattr(ResponseSealer, "seal", noted("seal", ResponseSealer.seal))
    gateway = Gateway([gated_model("slow", GatedSession())])
    sealed = [gateway.seal() for _ in range(3)]
    responses = _posts(gateway, [message for message, _ in sealed])
    assert order == ["open"] * 3 + ["answer"] * 3 + ["seal"] * 3
    for (_, opener), response in zip(sealed, responses, strict=True):
        assert gateway.open(response, opener).status == 200


def test_a_replay_is_one_among_those_that_arrive_together_too() -> None:
    gateway = Gateway([gated_model("slow", GatedSession())])
    (first, opener), (second, _) = gateway.seal(), gateway.seal()
    responses = _posts(gateway, [first, first, second, first])
    assert [response.status for response in responses] == [200, 400, 200, 400]
    assert gateway.open(responses[0], opener).status == 200
