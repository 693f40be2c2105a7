"""Requests that arrive together go forward together, stage by stage.

A small request is cheap where its code and tables lie in the processor's caches, and each of its stages
(open, run, seal, send) drives out what the others need. So whatever arrives in one turn of the event loop
goes through one stage before any of it begins the next: all but the first find the caches warm. This is
cohort scheduling (Larus and Parkes, USENIX 2002); what it brought is in docs/adr/0018-cohorts.md. A request
that arrives alone goes straight through, and so does a large one, which fills the caches by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import TypeAlias

from .messages import HttpResponse

Answer: TypeAlias = Coroutine[object, None, HttpResponse]

_LARGEST = 32
"""Answers that go forward together: enough to find caches warm, few enough that the first waits little."""
_SMALL = 65536
"""Bytes of a request that is kept waiting for others: the caches do not hold many larger ones for long."""


@coroutine
def end_of_stage() -> Generator[None, None, None]:
    """Whatever arrived at the same time is brought as far as this before any of it goes on."""
    yield


class Cohort:
    """Brings work forward, the small work of one turn of the event loop together. Mutable: what arrived in
    this turn.
    """

    def __init__(self) -> None:
        self._arrived: list[Work] = []

    def add(self, work: Work) -> None:
        """Begin ``work``: now where it is large, else when all that arrives in this turn has arrived."""
        if work.size > _SMALL:
            while work.advance():
                pass
            return
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self.turn)
        self._arrived.append(work)

    def turn(self) -> None:
        """Bring what arrived to its end, or to its first wait. The event loop calls it."""
        going, self._arrived = self._arrived[:_LARGEST], self._arrived[_LARGEST:]
        if self._arrived:
            asyncio.get_running_loop().call_soon(self.turn)
        while len(going) > 1:
            going = [work for work in going if work.advance()]
        for work in going:  # nobody is left to wait for
            while work.advance():
                pass


class Work:
    """An answer on its way. Mutable: how far it is.

    It is in no task until it waits for something. Most answers never do, and a task costs more than a small
    inference.
    """

    __slots__ = ("_answer", "_cancelled", "_done", "_task", "size")

    def __init__(self, answer: Answer, done: Callable[[HttpResponse | None], None], *, size: int) -> None:
        """``answer`` is to a request of ``size`` bytes. ``done`` gets what it returns, or ``None`` where it
        raised, which the event loop's exception handler is told.
        """
        self.size = size
        self._answer = answer
        self._done = done
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    def advance(self) -> bool:
        """Go on to the end of a stage; ``False`` where nothing is left to do in this turn."""
        if self._cancelled:
            self._answer.close()
            return False
        try:
            try:
                waits_for = self._answer.send(None)
            except StopIteration as finished:
                self._done(finished.value)
                return False
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  the others of the cohort must go on
            self._done(None)
            report = {"message": "a handler raised", "exception": error}
            asyncio.get_running_loop().call_exception_handler(report)
            return False
        if waits_for is None:
            return True
        rest = _resumed(self._answer, waits_for)  # which lets go of it; a parameter of ``_finish`` would not
        self._task = asyncio.get_running_loop().create_task(self._finish(rest))
        return False

    async def _finish(self, rest: Awaitable[HttpResponse]) -> None:
        try:
            response = await rest
        except BaseException:
            self._done(None)
            raise
        self._done(response)


@coroutine
def _resumed(answer: Answer, waits_for: object) -> Generator[object, None, HttpResponse]:
    """What ``answer`` returns, which was begun outside any task and yielded ``waits_for``: the rest of it in
    the task that awaits this. What was waited for is let go at once, for it may be all that holds a request.

    It has lost its cohort, so the ends of its stages are no ends here.
    """
    while True:
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001  whatever it is, it is for ``answer``
            step: Callable[[], object] = partial(answer.throw, error)
        else:
            step = partial(answer.send, None)
        waits_for = None
        try:
            while waits_for is None:
                waits_for = step()
                step = partial(answer.send, None)
        except StopIteration as finished:
            response: HttpResponse = finished.value
            return response
