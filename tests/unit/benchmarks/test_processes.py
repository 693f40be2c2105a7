"""Two processes against one, from windows made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.generator import Outcome
from benchmarks.load import Timings
from benchmarks.processes import compare, text
from benchmarks.variants import Variant


def outcome(*, requests: int, server_cpu: float, generator_cpu: float) -> Outcome:
    """A window of one second."""
    timings = Timings(np.full(requests, 0.01), 1.0, server_cpu, generator_cpu, others=0.0)
    return Outcome(timings, peak=1)


def test_what_was_measured_and_what_cpu_allows_stand_side_by_side() -> None:
    one = outcome(requests=100, server_cpu=1.0, generator_cpu=0.2)
    two = outcome(requests=160, server_cpu=1.68, generator_cpu=0.32)
    found = compare("tiny", Variant.XWING, [(one, two)] * 3, cores=2)
    assert found.rates == (100.0, 160.0)
    assert found.measured.median == pytest.approx(1.6)
    assert found.by_cpu.median == pytest.approx(2 * 0.01 / 0.0105)
    assert found.generator == pytest.approx(0.16)
    assert found.busy == pytest.approx(1.0)


def test_rounds_are_compared_with_themselves() -> None:
    pairs = [
        (
            outcome(requests=count, server_cpu=1.0, generator_cpu=0.1),
            outcome(requests=2 * count, server_cpu=2.0, generator_cpu=0.1),
        )
        for count in (100, 10, 1000)
    ]
    found = compare("tiny", Variant.XWING, pairs, cores=2)
    assert (found.measured.low, found.measured.high) == (2.0, 2.0)
    assert (found.by_cpu.low, found.by_cpu.high) == pytest.approx((2.0, 2.0))


def test_a_line_says_it() -> None:
    one = outcome(requests=100, server_cpu=1.0, generator_cpu=0.2)
    two = outcome(requests=160, server_cpu=1.68, generator_cpu=0.32)
    head, line = text([compare("tiny", Variant.XWING, [(one, two)], cores=2)]).splitlines()
    assert line.split() == [
        *("tiny,", "X-Wing", "100", "160", "10,000", "10,500"),
        *("1.60", "[1.60–1.60]", "1.90", "[1.90–1.90]", "16%", "100%"),
    ]
    assert max(len(head), len(line)) <= 140
