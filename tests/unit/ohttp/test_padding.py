from __future__ import annotations

import pytest

from confonnx.ohttp.padding import padme


@pytest.mark.parametrize(
    ("length", "padded"),
    [
        (0, 0),
        (1, 1),
        (8, 8),
        (9, 10),
        (100, 104),
        (1000, 1024),
        (1025, 1088),
        (10**6, 1015808),
        (1 << 24, 1 << 24),
    ],
)
def test_buckets(length: int, padded: int) -> None:
    assert padme(length) == padded


def test_properties_up_to_four_kibibytes() -> None:
    previous = 0
    for length in range(4097):
        padded = padme(length)
        assert length <= padded <= length * 1.12 + 1
        assert padme(padded) == padded
        assert padded >= previous
        previous = padded


def test_few_buckets() -> None:
    """The point of it: a size says little. 2^20 sizes fall into a few hundred buckets."""
    assert len({padme(length) for length in range(0, 1 << 20, 7)}) < 400


def test_no_negative_length() -> None:
    with pytest.raises(ValueError, match="not negative"):
        padme(-1)
