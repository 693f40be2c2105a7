"""Inference on a bounded pool of threads: a bounded queue, deadlines, an order that is fair to models.

The event loop stays free while onnxruntime computes (it releases the GIL), and no client can make the server
hold more work than the queue allows. What would wait too long is refused at once, so that what is accepted is
answered in time however much is offered. The order is ``fair_queue``'s.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar, cast

from confonnx.errors import DeadlineExceededError, OverloadedError
from confonnx.runtime.fair_queue import FairQueue

T = TypeVar("T")

_SHUTTING_DOWN = "the server is shutting down; send the request to another replica"
_TOO_MUCH = "more is asked of this server than it can answer in time; try again later"
_TOO_LATE = "the deadline passed before the model answered"
_LONGEST_RETRY = 60  # seconds; a client should not stay away longer for a guess


@dataclass(slots=True, eq=False)
class _Job:
    """Work that was accepted. Mutable: ``begun`` is set when a thread takes it; ``timer`` expires next."""

    work: Callable[[], object]
    kind: Hashable
    begin_by: float
    deadline: float
    abort: Callable[[], None] | None
    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[object]
    timer: asyncio.TimerHandle | None = None
    begun: bool = False


class Scheduler:
    """A pool for blocking work, used from one event loop. Mutable: it counts what is queued and running."""

    def __init__(
        self,
        *,
        threads: int,
        max_queue: int,
        max_wait: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``threads`` run at once, ``max_queue`` more may wait, for ``max_wait`` seconds; what comes beyond
        is refused. One thread more runs work that is far shorter than what all the others are doing.

        ``clock`` gives the seconds that deadlines are compared with.
        """
        if threads < 1 or max_queue < 0:
            raise ValueError(f"threads={threads} must be at least 1, max_queue={max_queue} at least 0")
        self._threads = threads
        self._pool: list[threading.Thread] = []  # started with the first work
        self._turns = SimpleQueue[bool | None]()  # each wakes one thread, to look for work; None ends it
        self._clock = clock
        self._capacity = threads + max_queue
        self._max_wait = max_wait
        self._unfinished: set[_Job] = set()  # of the event loop alone
        self._all_done: asyncio.Event | None = None  # while closing
        self._lock = threading.Lock()  # guards what follows, which the threads change too
        self._queue = FairQueue[_Job](threads=threads)
        self._active = 0  # threads that look for work
        self._beside = False  # whether the one more does
        self._running = 0

    @property
    def queued(self) -> int:
        """Work that waits for a thread."""
        with self._lock:
            return len(self._queue)

    @property
    def running(self) -> int:
        """Work that a thread is doing, that of callers who gave up included."""
        return self._running

    async def submit(
        self,
        work: Callable[[], T],
        *,
        kind: Hashable = None,
        deadline: float = math.inf,
        abort: Callable[[], None] | None = None,
    ) -> T:
        """The result of ``work()``, run on the pool when it is the turn of its ``kind`` (a model).

        ``deadline`` is an instant of the clock. When it passes, or the caller is cancelled or closed, work
        that has not begun is dropped and never runs; for work that has begun ``abort()`` is called, if given.
        Raises OverloadedError when the queue is full, when the work would not or did not begin in time, and
        when the scheduler is closed; DeadlineExceededError at the deadline; and what ``work`` raises. Needs a
        running event loop, but no current task before it first suspends.
        """
        loop = asyncio.get_running_loop()
        now = self._clock()
        job = _Job(work, kind, now + self._max_wait, deadline, abort, loop, loop.create_future())
        self._accept(job, now)
        self._arm(job, min(job.begin_by, deadline))
        try:
            return cast("T", await job.waiter)
        finally:
            if job.timer is not None:
                job.timer.cancel()
            if not job.waiter.done() or job.waiter.cancelled():
                self._give_up(job)
            del job  # an error's traceback holds this frame, and the job's future holds the error

    async def close(self, *, timeout: float) -> bool:
        """Takes no more work, and waits up to ``timeout`` seconds for what was accepted.

        Work that has not begun by then is dropped (its callers get OverloadedError), work that runs is
        aborted where that is possible. True when everything was done in time.
        """
        self._all_done = asyncio.Event()
        if self._unfinished:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_done.wait(), timeout)
        late = tuple(self._unfinished)
        for job in late:
            if not job.begun and not job.waiter.done():
                job.waiter.set_exception(OverloadedError(_SHUTTING_DOWN))
            self._give_up(job)
        for thread in self._pool:
            self._turns.put(None)
            atexit.register(thread.join)  # the interpreter must not go away under a run that goes on
        return not late

    def _accept(self, job: _Job, now: float) -> None:
        if job.deadline <= now:
            raise DeadlineExceededError("the deadline had passed when the request arrived")
        if self._all_done is not None:
            raise OverloadedError(_SHUTTING_DOWN)
        with self._lock:
            wait = self._queue.expected_wait(job.kind)
            # Where nothing is in the way it may try, whatever runs took before: that is how means recover.
            late = wait > 0 and now + wait + self._queue.mean(job.kind) > job.deadline
            if len(self._unfinished) >= self._capacity:
                raise OverloadedError(
                    f"{self._capacity} requests are queued or running, the most that this server takes",
                    retry_after=_retry_after(wait),
                )
            if late or wait > self._max_wait:
                raise OverloadedError(_TOO_MUCH, retry_after=_retry_after(wait))
            if not self._pool:
                self._start()
            self._unfinished.add(job)
            self._queue.push(job.kind, job)
            self._wake(job.kind)

    def _start(self) -> None:
        for number in range(self._threads + 1):
            thread = threading.Thread(target=self._serve, name=f"confonnx-inference-{number}", daemon=True)
            thread.start()
            self._pool.append(thread)

    def _wake(self, kind: Hashable) -> None:
        """Let a thread look for work of ``kind``, if there is one that may."""
        if self._active < self._threads:
            self._active += 1
            self._turns.put(False)
        elif not self._beside and self._queue.is_short(kind):
            self._beside = True
            self._turns.put(True)

    def _arm(self, job: _Job, when: float) -> None:
        if when < math.inf:
            job.timer = job.loop.call_later(when - self._clock(), self._expire, job)

    def _expire(self, job: _Job) -> None:
        """``job`` had to begin by now, or to be done."""
        if job.waiter.done():
            return
        if self._clock() < job.deadline:
            if job.begun:
                self._arm(job, job.deadline)
                return
            job.waiter.set_exception(OverloadedError(_TOO_MUCH, retry_after=_retry_after(self._max_wait)))
        else:
            job.waiter.set_exception(DeadlineExceededError(_TOO_LATE))
        self._give_up(job)

    def _give_up(self, job: _Job) -> None:
        """Nobody waits for ``job`` any more."""
        with self._lock:
            begun = job.begun
            if not begun:
                self._queue.remove(job.kind, job)
        if not begun:
            self._forget(job)
        elif job.abort is not None and job in self._unfinished:
            job.abort()

    def _forget(self, job: _Job) -> None:
        self._unfinished.discard(job)
        if self._all_done is not None and not self._unfinished:
            self._all_done.set()

    def _settle(self, job: _Job, result: object, error: BaseException | None) -> None:
        """In the event loop: ``job`` was run."""
        self._forget(job)
        if job.waiter.done():  # given up; nobody may see what its work said
            return
        if error is not None:
            job.waiter.set_exception(error)
        else:
            job.waiter.set_result(result)

    # In the threads of the pool.

    def _serve(self) -> None:
        """A thread. What wakes it is cheaper than an executor, whose futures nobody would read."""
        while (beside := self._turns.get()) is not None:
            self._work(beside)

    def _work(self, beside: bool) -> None:
        """Do what is queued until nothing is; ``beside``: only what may run beside busy threads."""
        while (job := self._next(beside)) is not None:
            self._run(job, beside)
            del job  # so that this frame does not keep the request while it waits for another

    def _next(self, beside: bool) -> _Job | None:
        with self._lock:
            job = self._queue.pop_short() if beside else self._queue.pop()
            if job is not None:
                job.begun = True
                self._running += 1
            elif beside:
                self._beside = False
            else:
                self._active -= 1
            return job

    def _run(self, job: _Job, beside: bool) -> None:
        started = self._clock()
        result: object = None
        failure: BaseException | None = None
        try:
            if job.deadline <= started:
                raise DeadlineExceededError("the deadline passed while the request was queued")
            if job.begin_by < started:
                raise OverloadedError(_TOO_MUCH, retry_after=_retry_after(self._max_wait))
            result = job.work()
        except BaseException as error:  # noqa: BLE001  it belongs to the caller, as it is
            failure = error
        finally:
            seconds = self._clock() - started
            with self._lock:
                self._running -= 1
                self._queue.done(job.kind, seconds, short=beside)
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            job.loop.call_soon_threadsafe(self._settle, job, result, failure)
        del job, result, failure  # as in submit: no circle keeps a request that failed


def _retry_after(wait: float) -> int:
    """Seconds until a thread is likely to be free for a newcomer, at least 1."""
    return min(max(1, math.ceil(min(wait, _LONGEST_RETRY))), _LONGEST_RETRY)
