"""One window of load, run in the load generator's own process, on its own core."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeVar

from benchmarks.exchanges import Variant, prepare
from benchmarks.load import Timings, ask_once, run_closed_loop
from benchmarks.machine import Cores, peak_bytes, reset_peak
from benchmarks.workloads import Workload

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Window:
    """``count`` requests of one kind to one server, ``concurrency`` at a time."""

    variant: Variant
    workload: Workload
    port: int
    pid: int
    concurrency: int
    count: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a window came to. ``peak`` is the server's largest resident set size in it, in bytes."""

    timings: Timings
    peak: int


@dataclass(frozen=True, slots=True)
class Generator:
    """The process that makes load. One piece of work at a time, since it has one core."""

    pool: ProcessPoolExecutor

    def run(self, work: Callable[[T], R], window: T) -> R:
        """``work(window)`` in that process. Raises what it raises."""
        return self.pool.submit(work, window).result()


@contextmanager
def generator(cores: Cores) -> Iterator[Generator]:
    """A load generator on its core."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_pin, initargs=(cores.generator,)) as pool:
        yield Generator(pool)


def run_window(window: Window) -> Outcome:
    """Make the requests ready, send them, and check every answer. Raises ``LoadError`` for a wrong one."""
    lead = window.concurrency + window.count // 20
    total = lead + window.count + window.concurrency
    prepared = prepare(window.variant, window.workload, port=window.port, count=total + 1)
    first = ask_once(window.port, prepared.messages[total])
    prepared.check(total, memoryview(first), window.workload)
    # Not bytearray(n): its pages would be made only when the first answer comes, within the time that counts.
    answers = [bytearray(b"\0") * len(first) for _ in range(total)]
    reset_peak(window.pid)
    timings, lengths = run_closed_loop(
        port=window.port,
        pid=window.pid,
        messages=prepared.messages[:total],
        answers=answers,
        concurrency=window.concurrency,
        lead=lead,
    )
    peak = peak_bytes(window.pid)
    for number, (answer, length) in enumerate(zip(answers, lengths, strict=True)):
        prepared.check(number, memoryview(answer)[:length], window.workload)
    return Outcome(timings, peak)


def run_single(window: Window) -> int:
    """One request, its answer checked: the server's peak resident set size meanwhile, in bytes. Raises
    ``LoadError``.
    """
    prepared = prepare(window.variant, window.workload, port=window.port, count=1)
    reset_peak(window.pid)
    answer = ask_once(window.port, prepared.messages[0])
    peak = peak_bytes(window.pid)
    prepared.check(0, memoryview(answer), window.workload)
    return peak


def _pin(core: int) -> None:
    os.sched_setaffinity(0, {core})
