"""Several requests for one model in one run, where its operator asked for it. Off by default: it puts
different clients' tensors into one.

Requests of equal types and trailing shapes that wait at the same time are concatenated along the first axis,
run together, and each gets its own rows of the answer, as a copy. A batch takes more requests until a thread
begins with it or it is full; ``max_queue_delay_us`` lets it wait for more even where a thread is free.

A batch that fails is run again one by one, so that what one client sent fails for that client alone. Whoever
gives up, or whose deadline passes, leaves the batch; the last one to leave ends its run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Generic, TypeVar, cast

import numpy as np

from confonnx.errors import ConfonnxError, DeadlineExceededError, InferenceError
from confonnx.oip.datatypes import Array
from confonnx.oip.values import Value
from confonnx.runtime.scheduler import Scheduler
from confonnx.runtime.session import Abort, Session

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """``max_batch_size`` in rows; ``max_queue_delay_us`` in microseconds, from a batch's first request on."""

    max_batch_size: int
    max_queue_delay_us: int = 0


@dataclass(frozen=True, slots=True)
class Observers:
    """Who is told how long (in seconds) a request waited, and how long a run took."""

    waited: Callable[[float], None]
    ran: Callable[[float], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Member(Generic[T]):
    """A request in a batch."""

    inputs: Mapping[str, Value]
    rows: int
    finish: Callable[[dict[str, Value]], T]
    joined_at: float


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[T]):
    """What became of a member: an error, or else a result."""

    member: _Member[T]
    result: T | None = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class _Batch(Generic[T]):
    """Requests that run together. Mutable; ``open`` until a thread begins with it, or it is full.

    ``members`` have a future each, which is done when they were answered or left. It is emptied in the end:
    the traceback of an error holds the batch, and a future the error, in a circle that would keep requests.
    """

    signature: Hashable
    wanted: list[str]
    members: dict[_Member[T], asyncio.Future[T]] = field(default_factory=dict)
    rows: int = 0
    open: bool = True
    abort: Abort = field(default_factory=Abort)
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[list[_Outcome[T]]] | None = None


class Batcher(Generic[T]):
    """Batches requests for one model. Mutable: the batches that are open. For use from one event loop."""

    def __init__(
        self,
        session: Session,
        options: BatchOptions,
        *,
        scheduler: Scheduler,
        kind: Hashable,
        observers: Observers,
    ) -> None:
        """``kind`` is what the ``scheduler`` knows the model by, which keeps rows apart (``batch_proof``)."""
        self._session = session
        self._options = options
        self._scheduler = scheduler
        self._kind = kind
        self._observers = observers
        self._open: dict[Hashable, _Batch[T]] = {}
        self._lock = threading.Lock()  # guards whether a batch is open, and its members while it is

    async def run(
        self,
        inputs: Mapping[str, Value],
        wanted: list[str],
        finish: Callable[[dict[str, Value]], T],
        *,
        deadline: float,
    ) -> T:
        """``finish`` of the outputs that ``inputs`` give, run with others or alone; in a thread of the pool.

        ``wanted`` names the outputs, all if empty; ``deadline`` is an instant of ``time.monotonic()``. Raises
        as ``Scheduler.submit`` and ``Session.run``, and what ``finish`` raises.
        """
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        rows = _rows(inputs)
        waiter: asyncio.Future[T] = loop.create_future()
        member = _Member(inputs, rows or 0, finish, now)
        if rows is None or rows > self._options.max_batch_size:
            batch = _Batch[T](None, wanted, {member: waiter}, open=False)
            self._dispatch(batch)
        else:
            batch = self._join(_signature(inputs, wanted), member, waiter, wanted)
        timer = loop.call_later(max(0.0, deadline - now), _expire, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._leave(batch)
            del waiter, batch  # as in the scheduler: no circle keeps a request that failed

    def _join(
        self, signature: Hashable, member: _Member[T], waiter: asyncio.Future[T], wanted: list[str]
    ) -> _Batch[T]:
        batch = self._open.get(signature)
        if batch is None or not self._add(batch, member, waiter):
            batch = _Batch[T](signature, wanted)
            self._add(batch, member, waiter)
            self._open[signature] = batch
            delay = self._options.max_queue_delay_us / 1e6
            if delay and batch.open:
                loop = asyncio.get_running_loop()
                batch.timer = loop.call_later(delay, self._dispatch, batch)
            else:
                self._dispatch(batch)
        if not batch.open:  # full
            self._dispatch(batch)
        return batch

    def _add(self, batch: _Batch[T], member: _Member[T], waiter: asyncio.Future[T]) -> bool:
        """False where the batch has begun, or has no room."""
        with self._lock:
            if not batch.open or batch.rows + member.rows > self._options.max_batch_size:
                return False
            batch.members[member] = waiter
            batch.rows += member.rows
            batch.open = batch.rows < self._options.max_batch_size
            return True

    def _dispatch(self, batch: _Batch[T]) -> None:
        """Queue ``batch`` for a thread, once."""
        if batch.timer is not None:
            batch.timer.cancel()
        if batch.task is None:
            # Members have deadlines of their own; the scheduler bounds how long the batch may wait.
            work = self._scheduler.submit(partial(self._work, batch), kind=self._kind, abort=batch.abort)
            batch.task = asyncio.get_running_loop().create_task(work)
            batch.task.add_done_callback(partial(self._settle, batch))

    def _leave(self, batch: _Batch[T]) -> None:
        """Nobody is left who waits for ``batch``: end it."""
        if all(waiter.done() for waiter in batch.members.values()):
            with self._lock:
                batch.open = False
            if self._open.get(batch.signature) is batch:
                del self._open[batch.signature]
            if batch.timer is not None:
                batch.timer.cancel()
            if batch.task is not None:
                batch.task.cancel()

    def _settle(self, batch: _Batch[T], task: asyncio.Task[list[_Outcome[T]]]) -> None:
        """``batch`` was run, or was not."""
        if self._open.get(batch.signature) is batch:
            del self._open[batch.signature]
        if not task.cancelled():  # else everybody had left
            failure = task.exception()
            outcomes = [_Outcome(m, error=failure) for m in batch.members] if failure else task.result()
            for outcome in outcomes:
                waiter = batch.members[outcome.member]
                if waiter.done():  # left while the batch ran
                    continue
                if outcome.error is not None:
                    waiter.set_exception(outcome.error)
                else:
                    waiter.set_result(cast("T", outcome.result))
            outcomes.clear()
        batch.members.clear()
        batch.task = None

    # In a thread of the pool.

    def _work(self, batch: _Batch[T]) -> list[_Outcome[T]]:
        with self._lock:
            batch.open = False
            members = [member for member, waiter in batch.members.items() if not waiter.done()]
        began = time.monotonic()
        for member in members:
            self._observers.waited(began - member.joined_at)
        try:
            answers = self._together(members, batch)
        except ConfonnxError as error:
            if len(members) == 1 or batch.abort.requested:
                return [_Outcome(member, error=error) for member in members]
            # Whose fault it was nobody knows: each for itself.
            return [self._alone(member, batch) for member in members]
        return [_finish(member, answer) for member, answer in zip(members, answers, strict=True)]

    def _alone(self, member: _Member[T], batch: _Batch[T]) -> _Outcome[T]:
        try:
            (answer,) = self._together([member], batch)
        except ConfonnxError as error:
            return _Outcome(member, error=error)
        return _finish(member, answer)

    def _together(self, members: Sequence[_Member[T]], batch: _Batch[T]) -> list[dict[str, Value]]:
        """The outputs of each of ``members`` from one run. Raises as ``Session.run``."""
        if not members:
            return []
        began = time.perf_counter()
        try:
            if len(members) == 1:
                return [self._session.run(members[0].inputs, batch.wanted, abort=batch.abort)]
            inputs: dict[str, Value] = {
                name: np.concatenate([_array(member.inputs[name]) for member in members])
                for name in members[0].inputs
            }
            outputs = self._session.run(inputs, batch.wanted, abort=batch.abort)
        finally:
            self._observers.ran(time.perf_counter() - began)
        return _split(outputs, [member.rows for member in members])


def _expire(waiter: asyncio.Future[T]) -> None:
    if not waiter.done():
        waiter.set_exception(DeadlineExceededError("the deadline passed before the model answered"))


def _rows(inputs: Mapping[str, Value]) -> int | None:
    """The size of the first axis, which all ``inputs`` share; None where they do not, or where it is 0."""
    sizes = {value.shape[:1] if isinstance(value, np.ndarray) else () for value in inputs.values()}
    shape = sizes.pop() if len(sizes) == 1 else ()
    return shape[0] or None if shape else None


def _signature(inputs: Mapping[str, Value], wanted: Sequence[str]) -> Hashable:
    """What requests have in common that may run together."""
    arrays = ((name, _array(value)) for name, value in inputs.items())
    return (*wanted,), frozenset((name, array.dtype, array.shape[1:]) for name, array in arrays)


def _split(outputs: Mapping[str, Value], rows: Sequence[int]) -> list[dict[str, Value]]:
    """Each request's own rows, in memory that holds nothing else. Raises InferenceError."""
    total = sum(rows)
    for name, value in outputs.items():
        if _array(value).shape[0] != total:
            raise InferenceError(f"output {name!r} has {_array(value).shape[0]} rows for {total}")
    ends = list(accumulate(rows))
    return [
        {name: _array(value)[end - size : end].copy() for name, value in outputs.items()}
        for size, end in zip(rows, ends, strict=True)
    ]


def _finish(member: _Member[T], answer: dict[str, Value]) -> _Outcome[T]:
    try:
        return _Outcome(member, result=member.finish(answer))
    except BaseException as error:  # noqa: BLE001  it belongs to this caller, as it is
        return _Outcome(member, error=error)


def _array(value: Value) -> Array:
    assert isinstance(value, np.ndarray)  # only tensors are batched
    return value
