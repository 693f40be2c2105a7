"""Inference on a bounded pool of threads: first come, first served, with a bounded queue and deadlines.

The event loop stays free while onnxruntime computes (it releases the GIL), and no client can make the server
hold more work than the queue allows.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar, cast

from confonnx.errors import DeadlineExceededError, OverloadedError

T = TypeVar("T")

_SHUTTING_DOWN = "the server is shutting down; send the request to another replica"
_TOO_LATE = "the deadline passed before the model answered"
_LONGEST_RETRY = 60  # seconds; a client should not stay away longer for a guess


@dataclass(slots=True, eq=False)
class _Job:
    """Work that was accepted. Mutable: ``begun`` becomes true when a thread takes it."""

    work: Callable[[], object]
    deadline: float
    abort: Callable[[], None] | None
    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[object]
    begun: bool = False


class Scheduler:
    """A pool for blocking work, used from one event loop. Mutable: it counts what is queued and running."""

    def __init__(self, *, threads: int, max_queue: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``threads`` run at once, ``max_queue`` more may wait; what comes beyond is refused.

        ``clock`` gives the seconds that deadlines are compared with.
        """
        if threads < 1 or max_queue < 0:
            raise ValueError(f"threads={threads} must be at least 1, max_queue={max_queue} at least 0")
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="confonnx-inference")
        self._threads = threads
        self._clock = clock
        self._capacity = threads + max_queue
        self._unfinished: set[_Job] = set()  # of the event loop alone
        self._all_done: asyncio.Event | None = None  # while closing
        self._lock = threading.Lock()  # guards what follows, which the threads change too
        self._queue: deque[_Job] = deque()
        self._active = 0  # threads that look for work
        self._running = 0
        self._mean_seconds = 0.0  # exponential moving average of a run

    @property
    def queued(self) -> int:
        """Work that waits for a thread."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Work that a thread is doing, that of callers who gave up included."""
        return self._running

    async def submit(
        self, work: Callable[[], T], *, deadline: float | None = None, abort: Callable[[], None] | None = None
    ) -> T:
        """The result of ``work()``, run on the pool in the order of submission.

        ``deadline`` is an instant of the clock. When it passes, or the caller is cancelled or
        closed, work that has not begun is dropped and never runs; for work that has begun ``abort()`` is
        called, if given. Raises OverloadedError when the queue is full or the scheduler is closed,
        DeadlineExceededError at the deadline, and what ``work`` raises. Needs a running event loop, but no
        current task before it first suspends.
        """
        loop = asyncio.get_running_loop()
        job = _Job(work, math.inf if deadline is None else deadline, abort, loop, loop.create_future())
        self._accept(job)
        timer = None
        if deadline is not None:
            timer = loop.call_later(deadline - self._clock(), self._expire, job)
        try:
            return cast("T", await job.waiter)
        finally:
            if timer is not None:
                timer.cancel()
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
        self._executor.shutdown(wait=False)
        return not late

    def _accept(self, job: _Job) -> None:
        if job.deadline <= self._clock():
            raise DeadlineExceededError("the deadline had passed when the request arrived")
        if self._all_done is not None:
            raise OverloadedError(_SHUTTING_DOWN)
        if len(self._unfinished) >= self._capacity:
            raise OverloadedError(
                f"{self._capacity} requests are queued or running, the most that this server takes",
                retry_after=self._retry_after(),
            )
        self._unfinished.add(job)
        with self._lock:
            self._queue.append(job)
            idle = self._active < self._threads
            self._active += idle
        if idle:
            self._executor.submit(self._work)

    def _retry_after(self) -> int:
        """Seconds until a thread is likely to be free for a newcomer, at least 1."""
        seconds = len(self._unfinished) * self._mean_seconds / self._threads
        return min(max(1, math.ceil(seconds)), _LONGEST_RETRY)

    def _expire(self, job: _Job) -> None:
        if not job.waiter.done():
            job.waiter.set_exception(DeadlineExceededError(_TOO_LATE))
            self._give_up(job)

    def _give_up(self, job: _Job) -> None:
        """Nobody waits for ``job`` any more."""
        with self._lock:
            begun = job.begun
            if not begun:
                with suppress(ValueError):  # given up before
                    self._queue.remove(job)
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

    def _work(self) -> None:
        """Do what is queued until nothing is."""
        while (job := self._next()) is not None:
            self._run(job)
            del job  # so that this frame does not keep the request while it waits for another

    def _next(self) -> _Job | None:
        with self._lock:
            if not self._queue:
                self._active -= 1
                return None
            job = self._queue.popleft()
            job.begun = True
            self._running += 1
            return job

    def _run(self, job: _Job) -> None:
        started = self._clock()
        result: object = None
        failure: BaseException | None = None
        try:
            if job.deadline <= started:
                raise DeadlineExceededError("the deadline passed while the request was queued")
            result = job.work()
        except BaseException as error:  # noqa: BLE001  it belongs to the caller, as it is
            failure = error
        finally:
            seconds = self._clock() - started
            with self._lock:
                self._running -= 1
                self._mean_seconds += (seconds - self._mean_seconds) / 8
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            job.loop.call_soon_threadsafe(self._settle, job, result, failure)
        del job, result, failure  # as in submit: no circle keeps a request that failed
