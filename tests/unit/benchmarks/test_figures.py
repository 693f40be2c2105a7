"""From windows to figures, with windows made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.figures import Cell, Results, Round
from benchmarks.generator import Outcome
from benchmarks.load import Timings
from benchmarks.quantiles import Spread
from benchmarks.variants import Variant

PLAIN = Cell("server", "tiny", 1, Variant.PLAIN)
SEALED = Cell("server", "tiny", 1, Variant.X25519)


def outcome(*latencies: float, generator_cpu: float = 0.1, others: float = 0.05, peak: int = 1000) -> Outcome:
    """A window of one second."""
    timings = Timings(
        np.array(latencies), elapsed=1.0, server_cpu=0.5, generator_cpu=generator_cpu, others=others
    )
    return Outcome(timings, peak)


def test_a_round_is_counted_for_each_request() -> None:
    found = Round.of(outcome(0.2, 0.3, 0.1, 0.4))
    assert (found.requests, found.p50, found.rate) == (4, 0.25, 4.0)
    assert (found.server_cpu, found.generator_cpu) == (0.125, 0.025)
    assert (found.generator_share, found.others, found.peak) == (0.1, 0.05, 1000)


def test_a_summary_pools_latencies_and_keeps_the_largest_peak() -> None:
    results = Results()
    results.add(PLAIN, outcome(1.0, 1.0, 1.0, peak=5))
    results.add(PLAIN, outcome(3.0, peak=9))
    found = results.summary(PLAIN)
    assert (found.requests, found.p50, found.rate, found.peak) == (4, 1.0, 2.0, 9)


@pytest.mark.parametrize(("share", "limited"), [(0.89, False), (0.9, True)])
def test_a_busy_generator_is_marked(share: float, limited: bool) -> None:
    results = Results()
    results.add(PLAIN, outcome(1.0, generator_cpu=share))
    assert results.summary(PLAIN).generator_limited is limited


@pytest.mark.parametrize(("others", "disturbed"), [(0.09, False), (0.1, True)])
def test_a_window_that_others_disturbed_is_marked(others: float, disturbed: bool) -> None:
    results = Results()
    results.add(PLAIN, outcome(1.0, others=others))
    assert results.summary(PLAIN).disturbed is disturbed


def test_variants_are_compared_within_a_round() -> None:
    results = Results()
    for disturbance in (1.0, 10.0, 3.0):
        results.add(PLAIN, outcome(disturbance, disturbance))
        results.add(SEALED, outcome(2 * disturbance))
    found = results.compare(SEALED, Variant.PLAIN)
    assert (found.p50.low, found.p50.median, found.p50.high) == (2.0, 2.0, 2.0)
    assert found.rate.median == 0.5
    assert found.server_cpu.median == 2.0
    assert found.generator_cpu == Spread(2.0, 2.0, 2.0)


def test_disturbed_rounds_are_left_out_where_enough_others_remain() -> None:
    results = Results()
    for number in range(4):
        results.add(PLAIN, outcome(1.0))
        results.add(SEALED, outcome(2.0) if number else outcome(50.0, others=0.5, peak=2000))
    found = results.compare(SEALED, Variant.PLAIN)
    assert (found.rounds, found.p50.low, found.p50.high) == (3, 2.0, 2.0)
    assert (results.summary(SEALED).p99, results.summary(SEALED).requests) == (2.0, 3)
    assert results.summary(SEALED).peak == 2000  # no less true for being disturbed


def test_disturbed_rounds_count_where_too_few_others_remain() -> None:
    results = Results()
    for latency, others in ((2.0, 0.05), (4.0, 0.5), (6.0, 0.5)):
        results.add(PLAIN, outcome(1.0))
        results.add(SEALED, outcome(latency, others=others))
    found = results.compare(SEALED, Variant.PLAIN)
    assert (found.rounds, found.p50.median) == (3, 4.0)
    assert results.summary(SEALED).disturbed


def test_the_rest_of_a_request_is_told_in_exchanges_of_its_round() -> None:
    results = Results(exchanges={"tiny": [0.05, 0.1]})
    for _ in range(2):
        results.add(Cell("server", "tiny", 1, Variant.IN_PROCESS), outcome(0.1, 0.1, 0.1, 0.1, 0.1))
        results.add(SEALED, outcome(0.4, 0.4))
    found = results.overhead(SEALED)  # 0.25 - 0.1 seconds, of one server's second
    assert (found.low, found.median, found.high) == pytest.approx((1.875, 2.25, 2.625))
    with pytest.raises(KeyError):
        results.overhead(PLAIN)


def test_onnxruntime_alone_has_no_generator_to_compare_with() -> None:
    results = Results()
    alone = Cell("server", "tiny", 1, Variant.IN_PROCESS)
    results.add(alone, outcome(0.1, generator_cpu=0.0))
    results.add(SEALED, outcome(0.4))
    found = results.compare(SEALED, Variant.IN_PROCESS)
    assert found.p50.median == pytest.approx(4.0)
    assert found.generator_cpu is None


def test_cells_come_by_concurrency_then_variant() -> None:
    results = Results()
    cells = [
        Cell("server", "tiny", 8, Variant.PLAIN),
        Cell("server", "tiny", 1, Variant.XWING),
        Cell("server", "tiny", 1, Variant.MINIMAL),
        Cell("server", "cnn", 1, Variant.MINIMAL),
        Cell("client", "tiny", 1, Variant.MINIMAL),
    ]
    for cell in cells:
        results.add(cell, outcome(1.0))
    assert list(results.cells("server", "tiny")) == [cells[2], cells[1], cells[0]]
