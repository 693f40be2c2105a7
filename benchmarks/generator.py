"""One window of load, run in a process of its own, on its own core."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeVar

from benchmarks.exchanges import prepare
from benchmarks.load import Timings, ask_once, run_closed_loop
from benchmarks.machine import peak_bytes, reset_peak
from benchmarks.variants import Variant
from benchmarks.workloads import Workload

T = TypeVar("T")
R = TypeVar("R")

_MORE_ROOM = 256
"""Bytes by which answers in JSON may differ: the ids that a server makes up."""


@dataclass(frozen=True, slots=True)
class Window:
    """``count`` requests of one kind to one server, ``concurrency`` at a time; ``pids`` are its processes."""

    variant: Variant
    workload: Workload
    port: int
    pids: tuple[int, ...]
    concurrency: int
    count: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a window came to. ``peak`` is the server's largest resident set size in it, in bytes."""

    timings: Timings
    peak: int


@dataclass(frozen=True, slots=True)
class Worker:
    """A process with a core of its own. One piece of work at a time."""

    pool: ProcessPoolExecutor
    pid: int

    def run(self, work: Callable[[T], R], argument: T) -> R:
        """``work(argument)`` in that process. Raises what it raises."""
        return self.pool.submit(work, argument).result()


@contextmanager
def worker(core: int | None) -> Iterator[Worker]:
    """A process on ``core``: the load generator on its own, or what stands for a server on the server's.

    None: wherever the system puts it.
    """
    cores = os.sched_getaffinity(0) if core is None else {core}
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_pin, initargs=(cores,)) as pool:
        yield Worker(pool, pool.submit(os.getpid).result())


def run_window(window: Window) -> Outcome:
    """Make the requests ready, send them, and check every answer. Raises ``LoadError`` for a wrong one."""
    lead = window.concurrency + window.count // 20
    total = lead + window.count + window.concurrency
    asked = len(window.workload.cases)
    # Those asked beforehand come first: numbers of a session go up.
    prepared = prepare(window.variant, window.workload, port=window.port, count=asked + total)
    firsts = [ask_once(window.port, message) for message in prepared.messages[:asked]]
    for number, first in enumerate(firsts):
        prepared.check(number, memoryview(first), window.workload)
    room = max(map(len, firsts)) + _MORE_ROOM
    # Not bytearray(n): its pages would be made only when the first answer comes, within the time that counts.
    answers = [bytearray(b"\0") * room for _ in range(total)]
    reset_peaks(window.pids)
    timings, lengths = run_closed_loop(
        port=window.port,
        pids=window.pids,
        messages=prepared.messages[asked:],
        answers=answers,
        concurrency=window.concurrency,
        lead=lead,
    )
    peak = peak_sum(window.pids)
    for number, (answer, length) in enumerate(zip(answers, lengths, strict=True), asked):
        prepared.check(number, memoryview(answer)[:length], window.workload)
    return Outcome(timings, peak)


def run_single(window: Window) -> int:
    """One request, its answer checked: the server's peak resident set size meanwhile, in bytes. Raises
    ``LoadError``.
    """
    prepared = prepare(window.variant, window.workload, port=window.port, count=1)
    reset_peaks(window.pids)
    answer = ask_once(window.port, prepared.messages[0])
    peak = peak_sum(window.pids)
    prepared.check(0, memoryview(answer), window.workload)
    return peak


def reset_peaks(pids: Sequence[int]) -> None:
    """``reset_peak`` for each."""
    for pid in pids:
        reset_peak(pid)


def peak_sum(pids: Sequence[int]) -> int:
    """The peaks of several processes, in bytes. They may not have had them at the same time, and what they
    share counts for each.
    """
    return sum(map(peak_bytes, pids))


def _pin(cores: Collection[int]) -> None:
    os.sched_setaffinity(0, cores)
