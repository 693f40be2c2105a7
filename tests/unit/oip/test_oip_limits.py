from __future__ import annotations

from dataclasses import replace

import pytest

from confonnx.errors import ConfigurationError, OipError
from confonnx.oip.limits import OipLimits

LIMITS = OipLimits(max_elements=1000, max_rank=3, max_name_length=4)


@pytest.mark.parametrize(("shape", "count"), [((), 1), ((10, 100), 1000), ((0, 1000), 0), ((5, 0, 0), 0)])
def test_counts(shape: tuple[int, ...], count: int) -> None:
    assert LIMITS.count_elements(shape, "x") == count


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((-1,), "x: shape has a negative dimension"),
        ((0, -1), "x: shape has a negative dimension"),
        ((-2, -3), "x: shape has a negative dimension"),
        ((1001,), "more than the 1000 elements"),
        ((11, 100), "more than the 1000 elements"),
        ((0, 1001), "more than the 1000 elements"),
        ((2**32, 2**32), "more than the 1000 elements"),  # the product is 0 in 64 bits
        ((2**63, 2), "more than the 1000 elements"),
        ((2**61 + 1, 8), "more than the 1000 elements"),
        ((1, 1, 1, 1), "x: 4 dimensions, at most 3"),
    ],
)
def test_shapes_over_the_limits(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(OipError, match=message):
        LIMITS.count_elements(shape, "x")


def test_names() -> None:
    assert LIMITS.check_name("four", "it") == "four"
    with pytest.raises(OipError, match="it has 5 characters, at most 4"):
        LIMITS.check_name("fives", "it")


def test_bounds_of_the_bounds() -> None:
    with pytest.raises(ConfigurationError, match="max_depth must be at least 1, got 0"):
        OipLimits(max_depth=0)
    with pytest.raises(ConfigurationError, match="max_rank must be at most 64, got 65"):
        OipLimits(max_rank=65)
    assert replace(LIMITS, max_rank=64).max_rank == 64
