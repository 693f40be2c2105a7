"""The report says what was measured, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.exchanges import Variant
from benchmarks.figures import Cell, Results
from benchmarks.generator import Outcome
from benchmarks.load import Timings
from benchmarks.machine import Cores, describe_machine
from benchmarks.memory import Growth
from benchmarks.report import Report
from benchmarks.workloads import Workload

WORKLOAD = Workload("tiny", Path("tiny.onnx"), np.zeros(256, np.float32), np.zeros(1, np.float32), 6e-6, (1,))


def report() -> Report:
    """Sealed takes twice as long as plain, which takes 100 µs; the generator limits the minimal server."""
    results = Results()
    for variant, latency, generator_cpu in (
        (Variant.PLAIN, 100e-6, 0.1),
        (Variant.XWING, 200e-6, 0.1),
        (Variant.MINIMAL, 50e-6, 0.95),
    ):
        timings = Timings(
            np.full(4, latency), elapsed=1.0, server_cpu=4 * latency, generator_cpu=generator_cpu, others=0.02
        )
        results.add(Cell("server", "tiny", 1, variant), Outcome(timings, peak=1 << 20))
    growths = [Growth(Variant.XWING, first=48 << 20, repeated=32 << 20, payload=16 << 20)]
    return Report(describe_machine(Cores(0, 1)), {"seed": 1}, [WORKLOAD], results, growths)


def line(variant: Variant) -> str:
    """The one line of the text about ``variant``'s times."""
    (found,) = [text for text in report().text().splitlines() if text.startswith(f"  1 {variant} ")]
    return found


def test_times_and_ratios_are_in_one_line() -> None:
    assert "200 µs" in line(Variant.XWING)
    assert "2.00 [2.00–2.00]" in line(Variant.XWING)
    assert line(Variant.XWING).endswith("4.00 [4.00–4.00]")  # against the minimal server
    assert line(Variant.PLAIN).endswith("2.00 [2.00–2.00]")


def test_a_limiting_generator_is_marked() -> None:
    assert "4.0G" in line(Variant.MINIMAL)
    assert "4.0G" not in line(Variant.PLAIN)


def test_machine_and_memory_are_said() -> None:
    text = report().text()
    assert "server on core 0, load generator on core 1" in text
    assert "onnxruntime" in text
    assert "3.00 × the payload" in text


def test_no_line_is_too_long_for_a_terminal() -> None:
    assert max(map(len, report().text().splitlines())) <= 132


def test_the_json_has_every_round_and_ratio(tmp_path: Path) -> None:
    report().write_json(tmp_path / "report.json")
    document = json.loads((tmp_path / "report.json").read_text())
    cells = {cell["variant"]: cell for cell in document["cells"]}
    assert cells["X-Wing"]["ratios"]["plain"]["p50"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert len(cells["X-Wing"]["rounds"]) == 1
    assert cells["minimal"]["generator_limited"] is True
    assert set(cells["plain"]["ratios"]) == {"minimal"}
    assert document["memory"][0]["payloads"] == 3.0
    assert document["settings"] == {"seed": 1}
