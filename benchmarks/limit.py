"""The limit: the same inference in process, with the same threads, and nothing around it.

And one X25519 exchange, the unit in which the rest of a request is told. Both run on the server's core.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from benchmarks.generator import Outcome, Window, peak_sum, reset_peaks
from benchmarks.load import Timings
from benchmarks.machine import core_of, idle_seconds
from benchmarks.workloads import open_session

_EXCHANGES = 300


def run_in_process(window: Window) -> Outcome:
    """``window.count`` runs, one after the other.

    ``window.concurrency`` callers that wait in a queue, in the order in which they came, would see the
    latencies given: each begins to wait when its last answer is there, so many runs before.
    """
    session = _session(window.workload.path)
    feeds = [{"x": case.input} for case in window.workload.cases]
    total = window.concurrency + window.count
    ends = np.zeros(total)
    for feed in feeds:
        session.run(None, feed)
    reset_peaks(window.pids)
    idle, cpu, begin = idle_seconds(core_of(0)), time.process_time(), time.perf_counter()
    for number in range(total):
        session.run(None, feeds[number % len(feeds)])
        ends[number] = time.perf_counter()
    elapsed, cpu = time.perf_counter() - begin, time.process_time() - cpu
    others = elapsed - cpu - (idle_seconds(core_of(0)) - idle)
    per_request = window.count / total  # the first runs only fill the queue
    timings = Timings(
        latencies=ends[window.concurrency :] - ends[: -window.concurrency],
        elapsed=elapsed * per_request,
        server_cpu=cpu * per_request,
        generator_cpu=0.0,
        others=max(others, 0.0) / elapsed,
    )
    return Outcome(timings, peak_sum(window.pids))


def exchange_seconds(_: None) -> float:
    """CPU time of one X25519 exchange, in a loop of many."""
    own, other = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key()
    begin = time.process_time()
    for _number in range(_EXCHANGES):
        own.exchange(other)
    return (time.process_time() - begin) / _EXCHANGES


@cache
def _session(path: Path) -> Any:
    return open_session(path)
