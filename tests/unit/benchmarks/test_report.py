"""The report says what was measured, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.figures import Cell, Results
from benchmarks.generator import Outcome
from benchmarks.load import Timings
from benchmarks.machine import Cores, describe_machine
from benchmarks.memory import Growth
from benchmarks.report import Column, Report
from benchmarks.variants import OURS, Variant
from benchmarks.workloads import Case, Workload

CASE = Case(np.zeros(256, np.float32), np.zeros(1, np.float32))
WORKLOAD = Workload("tiny", Path("tiny.onnx"), (CASE,), 6e-6, (1,))
COLUMNS = (Column("p50", Variant.PLAIN), Column("p50", Variant.MINIMAL), Column("p50", Variant.TRITON))


def report() -> Report:
    """Sealed takes twice as long as plain, which takes 100 µs; the generator limits the minimal server."""
    results = Results(exchanges={"tiny": [15e-6]})
    for variant, latency, generator_cpu in (
        (Variant.PLAIN, 100e-6, 0.1),
        (Variant.XWING, 200e-6, 0.1),
        (Variant.MINIMAL, 50e-6, 0.95),
        (Variant.IN_PROCESS, 50e-6, 0.0),
    ):
        timings = Timings(
            np.full(4, latency), elapsed=1.0, server_cpu=4 * latency, generator_cpu=generator_cpu, others=0.02
        )
        results.add(Cell("server", "tiny", 1, variant), Outcome(timings, peak=1 << 20))
    growths = [Growth(Variant.XWING, first=48 << 20, repeated=32 << 20, payload=16 << 20)]
    return Report(describe_machine(Cores(0, 1)), {"seed": 1}, [WORKLOAD], results, growths, OURS, (COLUMNS,))


def lines(variant: Variant) -> list[str]:
    """The lines of the text about ``variant``: its figures and, if it has any, its ratios."""
    return [text for text in report().text().splitlines() if text.startswith(f"  1 {variant} ")]


def test_figures_and_ratios_stand_under_their_heads() -> None:
    figures, ratios, exchanges = lines(Variant.XWING)
    assert figures.split()[2:6] == ["200", "µs", "200", "µs"]
    assert "1 MiB" in figures
    assert ratios.split()[2:] == ["1", "2.00", "[2.00–2.00]", "4.00", "[4.00–4.00]"]
    assert exchanges.split()[2:] == ["10.0", "[10.0–10.0]"]
    (head,) = [text for text in report().text().splitlines() if "p50 / plain" in text]
    assert "p50 / minimal" in head
    assert "Triton" not in head  # it was not measured


def test_what_is_compared_with_has_no_ratio_to_itself() -> None:
    assert lines(Variant.PLAIN)[1].split()[2:] == ["1", "2.00", "[2.00–2.00]"]
    assert len(lines(Variant.MINIMAL)) == 2  # no row of ratios


def test_a_limiting_generator_is_marked() -> None:
    assert "4.0G" in lines(Variant.MINIMAL)[0]
    assert "4.0G" not in lines(Variant.PLAIN)[0]


def test_machine_and_memory_are_said() -> None:
    text = report().text()
    assert "server on core 0, load generator on core 1" in text
    assert "onnxruntime" in text
    assert "3.00 × the payload" in text


def test_no_line_is_too_long_for_a_terminal() -> None:
    assert max(map(len, report().text().splitlines())) <= 140


def test_the_json_has_every_round_and_ratio(tmp_path: Path) -> None:
    report().write_json(tmp_path / "report.json")
    document = json.loads((tmp_path / "report.json").read_text())
    cells = {cell["variant"]: cell for cell in document["cells"]}
    assert cells["X-Wing"]["ratios"]["plain"]["p50"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert len(cells["X-Wing"]["rounds"]) == 1
    assert cells["minimal"]["generator_limited"] is True
    assert set(cells["plain"]["ratios"]) == {"minimal", "X-Wing", "in process"}
    assert document["memory"][0]["payloads"] == 3.0
    assert document["settings"] == {"seed": 1}
