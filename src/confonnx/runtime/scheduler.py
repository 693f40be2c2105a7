"""Inference on a bounded pool of threads: first come, first served, with a bounded queue and deadlines.

The event loop stays free while onnxruntime computes (it releases the GIL), and no client can make the server
hold more work than the queue allows.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar, cast

from confonnx.errors import DeadlineExceededError, OverloadedError

T = TypeVar("T")

_SHUTTING_DOWN = "the server is shutting down; send the request to another replica"
_LONGEST_RETRY = 60  # seconds; a client should not stay away longer for a guess


class Scheduler:
    """A pool for blocking work, used from one event loop. Mutable: it counts what is queued and running."""

    def __init__(self, *, threads: int, max_queue: int) -> None:
        """``threads`` run at once, ``max_queue`` more may wait; what comes beyond is refused."""
        if threads < 1 or max_queue < 0:
            raise ValueError(f"threads={threads} must be at least 1, max_queue={max_queue} at least 0")
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="confonnx-inference")
        self._threads = threads
        self._capacity = threads + max_queue
        self._lock = threading.Lock()  # guards the three below, which workers change too
        self._unfinished: dict[Future[object], Callable[[], None] | None] = {}  # with what aborts each
        self._running = 0
        self._mean_seconds = 0.0  # exponential moving average of a run
        self._closed = False

    @property
    def queued(self) -> int:
        """Work that waits for a thread."""
        with self._lock:
            return len(self._unfinished) - self._running

    @property
    def running(self) -> int:
        """Work that a thread is doing, that of callers who gave up included."""
        with self._lock:
            return self._running

    async def submit(
        self, work: Callable[[], T], *, deadline: float | None = None, abort: Callable[[], None] | None = None
    ) -> T:
        """The result of ``work()``, run on the pool in the order of submission.

        ``deadline`` is an instant of ``time.monotonic()``. When it passes, or the calling task is cancelled,
        work that has not begun is dropped and never runs; for work that has begun ``abort()`` is called, if
        given. Raises OverloadedError when the queue is full or the scheduler is closed,
        DeadlineExceededError at the deadline, and what ``work`` raises.
        """
        future = self._enqueue(work, deadline, abort)
        waiter = asyncio.wrap_future(future)
        try:
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            async with asyncio.timeout(timeout):
                return await asyncio.shield(waiter)
        except TimeoutError as error:
            if (
                waiter.done() and not waiter.cancelled()
            ):  # the work's own TimeoutError, or done at the last moment
                return waiter.result()
            self._give_up(future, waiter, abort)
            raise DeadlineExceededError("the deadline passed before the model answered") from error
        except asyncio.CancelledError:
            self._give_up(future, waiter, abort)
            task = asyncio.current_task()
            if waiter.cancelled() and task is not None and not task.cancelling():
                raise OverloadedError(_SHUTTING_DOWN) from None  # close() dropped it
            raise

    async def close(self, *, timeout: float) -> bool:
        """Takes no more work, and waits up to ``timeout`` seconds for what was accepted.

        Work that has not begun by then is dropped (its callers get OverloadedError), work that runs is
        aborted where that is possible. True when everything was done in time.
        """
        with self._lock:
            self._closed = True
            unfinished = set(self._unfinished)
        loop = asyncio.get_running_loop()
        late = await loop.run_in_executor(None, lambda: wait(unfinished, timeout).not_done)
        self._executor.shutdown(wait=False, cancel_futures=True)
        for future in late:
            abort = self._unfinished.get(future)
            if abort is not None:
                abort()
        return not late

    def _enqueue(
        self, work: Callable[[], T], deadline: float | None, abort: Callable[[], None] | None
    ) -> Future[T]:
        if deadline is not None and deadline <= time.monotonic():
            raise DeadlineExceededError("the deadline had passed when the request arrived")
        with self._lock:
            if self._closed:
                raise OverloadedError(_SHUTTING_DOWN)
            if len(self._unfinished) >= self._capacity:
                raise OverloadedError(
                    f"{self._capacity} requests are queued or running, the most that this server takes",
                    retry_after=self._retry_after(),
                )
            future = self._executor.submit(self._run, work, deadline)
            self._unfinished[cast("Future[object]", future)] = abort
        # Outside the lock: a callback on a finished future runs at once, in this thread.
        future.add_done_callback(self._forget)
        return future

    def _run(self, work: Callable[[], T], deadline: float | None) -> T:
        started = time.monotonic()
        if deadline is not None and deadline <= started:
            raise DeadlineExceededError("the deadline passed while the request was queued")
        with self._lock:
            self._running += 1
        try:
            return work()
        finally:
            seconds = time.monotonic() - started
            with self._lock:
                self._running -= 1
                self._mean_seconds += (seconds - self._mean_seconds) / 8

    def _forget(self, future: Future[T]) -> None:
        with self._lock:
            self._unfinished.pop(cast("Future[object]", future), None)

    def _retry_after(self) -> int:
        """Seconds until a thread is likely to be free for a newcomer, at least 1."""
        seconds = len(self._unfinished) * self._mean_seconds / self._threads
        return min(max(1, math.ceil(seconds)), _LONGEST_RETRY)

    @staticmethod
    def _give_up(future: Future[T], waiter: asyncio.Future[T], abort: Callable[[], None] | None) -> None:
        waiter.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # nobody else will look at it
        if not future.cancel() and abort is not None:
            abort()
