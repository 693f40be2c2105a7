"""A goal that is missed is called so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.goals import (
    Document,
    judge_overload,
    judge_peers,
    judge_processes,
    judge_sealed,
    judge_soak,
    main,
)


def spread(median: float) -> Document:
    return {"median": median, "low": median, "high": median}


def cell(workload: str, concurrency: int, variant: str, overhead: float, **bases: Document) -> Document:
    """``bases``: what the ratios to each are, its name without spaces."""
    names = {"in_process": "in process", "Triton": "Triton py"}
    return {
        "view": "server",
        "workload": workload,
        "concurrency": concurrency,
        "variant": variant,
        "overhead": spread(overhead),
        "ratios": {
            names.get(base, base): {metric: spread(value) for metric, value in metrics.items()}
            for base, metrics in bases.items()
        },
    }


def ratios(p50: float, rate: float, server_cpu: float = 1.0) -> Document:
    return {"p50": p50, "rate": rate, "server_cpu": server_cpu}


@pytest.mark.parametrize(
    ("p50", "rate", "met"),
    [(1.25, 0.8, [True, True]), (1.26, 0.8, [False, True]), (1.0, 0.79, [True, False])],
)
def test_sessions_are_held_against_the_open_server(p50: float, rate: float, met: list[bool]) -> None:
    cells = [
        cell("tiny", concurrency, "session X-Wing", 1.5, plain=ratios(p50, rate)) for concurrency in (1, 8)
    ]
    verdicts = list(judge_sealed({"cells": cells, "memory": []}))
    assert [verdict.met for verdict in verdicts if "plain" in verdict.goal] == met
    assert [verdict.met for verdict in verdicts if "exchanges" in verdict.goal] == [True, True]


def test_models_are_held_against_onnxruntime_alone() -> None:
    cells = [cell("cnn", 8, "session X25519", 9.0, in_process=ratios(1.06, 0.96))]
    verdicts = list(judge_sealed({"cells": cells, "memory": []}))
    assert [(verdict.goal, verdict.met) for verdict in verdicts] == [
        ("p50 ≤ 1.05 × in process", False),
        ("req/s ≥ 0.95 × in process", True),
    ]


def test_what_seals_nothing_is_shown_beside() -> None:
    cells = [
        cell("cnn", 8, "session X25519", 9.0, in_process=ratios(1.06, 0.96)),
        cell("cnn", 8, "minimal", 2.0, in_process=ratios(1.05, 0.97)),
        cell("cnn", 1, "plain", 3.0, in_process=ratios(1.01, 0.99)),
        cell("tiny", 8, "session X25519", 4.0),
        cell("tiny", 8, "plain", 1.9),
    ]
    verdicts = list(judge_sealed({"cells": cells, "memory": []}))
    assert [verdict.measured for verdict in verdicts] == [
        "1.06 [1.06–1.06] (minimal 1.05)",
        "0.96 [0.96–0.96] (minimal 0.97)",
        "4.00 [4.00–4.00] (plain 1.90)",
    ]


@pytest.mark.parametrize(("payloads", "met"), [(2.5, True), (2.51, False)])
def test_memory_is_held_against_the_payload(payloads: float, met: bool) -> None:
    memory = [{"variant": "session X-Wing", "payloads": payloads}, {"variant": "minimal", "payloads": 9.0}]
    assert [verdict.met for verdict in judge_sealed({"cells": [], "memory": memory})] == [met]


def test_a_peer_that_is_ahead_somewhere_is_named() -> None:
    document = {
        "workloads": [{"name": "tiny"}],
        "cells": [
            cell("tiny", 1, "session X-Wing", 9.0, FastAPI=ratios(1.2, 1.1), Triton=ratios(0.2, 4.0)),
            cell("tiny", 8, "session X-Wing", 9.0, FastAPI=ratios(0.9, 1.2), Triton=ratios(0.2, 4.0)),
            cell("tiny", 8, "X25519", 9.0, FastAPI=ratios(9.0, 0.1), Triton=ratios(0.2, 4.0, 0.61)),
        ],
    }
    found = {verdict.goal: verdict for verdict in judge_peers(document)}
    ahead = found["p50 ahead of FastAPI in the clear"]
    assert not ahead.met
    assert ahead.measured == "1 of 2 cells; tiny, c = 1, session X-Wing: 1.20 [1.20–1.20]"
    assert found["req/s ahead of FastAPI in the clear"].met
    assert found["p50 ahead of Triton py in the clear"].met
    assert not found["CPU ≤ 0.6 × Triton py"].met


@pytest.mark.parametrize(("by_cpu", "met"), [(1.8, True), (1.79, False)])
def test_processes_are_judged_by_cpu(by_cpu: float, met: bool) -> None:
    row = {
        "workload": "cnn",
        "variant": "X-Wing",
        "generator": 0.1,
        "by_cpu": spread(by_cpu),
        "measured": spread(1.0),
    }
    (verdict,) = judge_processes({"comparisons": [row]})
    assert verdict.met is met


def overload(**changed: Any) -> Document:
    row = {"connections": 1000, "busy": 8, "ratio": spread(changed.get("ratio", 0.95))}
    outcomes = changed.get("outcomes", {"200": 50, "503": 50})
    flood = {"requests": 32, "payload": 16 << 20, "limit": 1 << 27, "growth": changed.get("growth", 1 << 27)}
    return {
        "scaling": [{**row, "connections": 8}, row],
        "weather": {"tiny": {"2.0": {"p99": 0.1, "outcomes": outcomes}}},
        "floods": [{**flood, "outcomes": changed.get("flood", {"200": 7, "503": 25})}],
    }


@pytest.mark.parametrize(
    ("changed", "met"),
    [
        ({}, [True, True, True]),
        ({"ratio": 0.89}, [False, True, True]),
        ({"outcomes": {"200": 50, "-1": 1}}, [True, False, True]),
        ({"growth": 3 << 27}, [True, True, False]),
        ({"flood": {"200": 7, "0": 25}}, [True, True, False]),
    ],
)
def test_overload_is_judged(changed: Document, met: list[bool]) -> None:
    assert [verdict.met for verdict in judge_overload(overload(**changed))] == met


def soak(per_second: float) -> Document:
    slope = {"per_second": per_second, "error": 0.0, "mean": 1000.0, "seconds": 10.0}
    return {"slope": slope, "samples": [[600.0, 1]]}


@pytest.mark.parametrize(("per_second", "status"), [(1.0, 0), (3.0, 1)])
def test_what_is_there_is_judged_and_a_missed_goal_ends_with_1(
    per_second: float, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "soak.json").write_text(json.dumps(soak(per_second)))
    assert main([str(tmp_path)]) == status
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2].endswith("met |" if status == 0 else "**missed** |")
    assert [verdict.met for verdict in judge_soak(soak(per_second))] == [status == 0]
