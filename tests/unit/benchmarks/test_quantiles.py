"""The statistics of the benchmarks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quantiles import Spread, paired_ratios, quantile, spread

POSITIVE = st.floats(min_value=1e-6, max_value=1e6)


def test_a_quantile_lies_linearly_between_its_neighbours() -> None:
    assert quantile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.5
    assert quantile([0.0, 10.0], 0.99) == pytest.approx(9.9)
    assert quantile([7.0], 0.99) == 7.0


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert spread([5.0, 1.0, 2.0, 3.0, 4.0]) == Spread(3.0, 2.0, 4.0)


@pytest.mark.parametrize("q", [-0.1, 1.1])
def test_a_fraction_outside_0_to_1_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="range"):
        quantile([1.0], q)


def test_no_values_have_no_quantile() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        spread([])


def test_ratios_are_taken_round_by_round() -> None:
    # The second round was disturbed as a whole: its ratio is that of the others.
    assert paired_ratios([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(("above", "below"), [([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([1.0], [float("nan")])])
def test_rounds_that_do_not_pair_up_are_refused(above: list[float], below: list[float]) -> None:
    with pytest.raises(ValueError, match=r"paired|positive"):
        paired_ratios(above, below)


@given(st.lists(POSITIVE, min_size=1), POSITIVE)
def test_a_spread_is_ordered_and_scales_with_its_values(values: list[float], factor: float) -> None:
    found, scaled = spread(values), spread([value * factor for value in values])
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert scaled.median == pytest.approx(found.median * factor)
