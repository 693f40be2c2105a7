"""The benchmarks' servers answer the benchmarks' requests, and rightly: a window checks every answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.calls import CallWindow, run_calls
from benchmarks.generator import Window, run_window
from benchmarks.machine import Cores, core_of
from benchmarks.servers import confonnx_repository, minimal_server
from benchmarks.soak import soak_once
from benchmarks.variants import OURS, Variant
from benchmarks.workloads import make_workloads
from confonnx.attestation import result

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may reset a peak that is not its own")


@pytest.fixture(autouse=True)
def preference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of calls sets it, in what is usually a process of its own."""
    monkeypatch.setattr(result, "KEM_PREFERENCE", result.KEM_PREFERENCE)


@pytest.fixture
def cores() -> Cores:
    return Cores(core_of(0), core_of(0))


def test_every_variant_and_everything_that_a_soak_does(tmp_path: Path, cores: Cores) -> None:
    workloads = make_workloads(["tiny", "cnn", "identity-4"], tmp_path)
    with confonnx_repository(tmp_path, cores) as server:
        for variant in OURS:
            window = Window(variant, workloads[0], server.port, server.pids, concurrency=3, count=10)
            assert len(run_window(window).timings.latencies) == 10
            calls = CallWindow(window, server.measurement)
            assert len(run_calls(calls).timings.latencies) == 10
        done = soak_once(server, workloads)
    assert len(done) == 10
    assert min(done.values()) > 0


def test_the_minimal_server_answers(tmp_path: Path, cores: Cores) -> None:
    (workload,) = make_workloads(["transformer"], tmp_path)
    with minimal_server(workload, cores) as server:
        window = Window(Variant.MINIMAL, workload, server.port, server.pids, concurrency=2, count=6)
        assert len(run_window(window).timings.latencies) == 6
