"""onnxruntime alone, and the unit."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.generator import Outcome, Window
from benchmarks.limit import exchange_seconds, run_in_process
from benchmarks.variants import Variant
from benchmarks.workloads import Workload, make_workloads


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    """Its runs take a second of a clock that each look advances."""
    (made,) = make_workloads(["tiny"], tmp_path)
    looks = count()
    clocks = SimpleNamespace(perf_counter=lambda: float(next(looks)), process_time=lambda: 0.0)
    monkeypatch.setattr("benchmarks.limit.time", clocks)
    # A process that some test hardened does not let its peak be reset.
    monkeypatch.setattr("benchmarks.limit.reset_peaks", lambda pids: None)
    return made


def run(workload: Workload, concurrency: int) -> Outcome:
    return run_in_process(Window(Variant.IN_PROCESS, workload, 0, (os.getpid(),), concurrency, count=20))


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_callers_in_a_queue_wait_for_those_before(workload: Workload, concurrency: int) -> None:
    timings = run(workload, concurrency).timings
    assert timings.latencies.tolist() == [float(concurrency)] * 20
    total = 20 + concurrency
    assert timings.elapsed == pytest.approx((total + 1) * 20 / total)  # one look more, at the end
    assert timings.generator_cpu == 0


def test_its_memory_is_told(workload: Workload) -> None:
    assert run(workload, 1).peak > 0


def test_an_exchange_takes_time() -> None:
    assert exchange_seconds(None) > 0
