"""Durations and sizes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confonnx.server.quantities import parse_duration, parse_size, show_duration, show_size


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("24h", 86400), ("30m", 1800), ("90", 90), (90, 90), (1.5, 1.5), ("500ms", 0.5), ("1.5s", 1.5),
     ("2d", 172800), (" 5 M ", 300), ("0", 0), (timedelta(seconds=3), 3)],
)  # fmt: skip
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "h",
        "-1",
        -1,
        "1w",
        "1 h 2 m",
        "1e5",
        "nan",
        "inf",
        float("nan"),
        True,
        None,
        [],
        "11y",
        "99999999d",
    ],
)
def test_no_durations(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [("64MiB", 64 << 20), ("1.5kib", 1536), ("4096", 4096), (7, 7), ("2GB", 2 * 10**9), ("1b", 1), ("0", 0)],
)
def test_sizes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["", "MiB", "-1", -1, 1.5, "0.3KiB", "1 Mio", True, None, "1m"])
def test_no_sizes(value: object) -> None:
    with pytest.raises(ValueError, match="bytes"):
        parse_size(value)


@given(st.integers(0, 10**7))
def test_what_is_shown_is_taken_back(number: int) -> None:
    assert parse_duration(show_duration(timedelta(seconds=number))) == timedelta(seconds=number)
    assert parse_size(show_size(number)) == number


def test_shown_short() -> None:
    assert [show_duration(timedelta(seconds=value)) for value in (86400, 5400, 120, 90, 0.5)] == [
        "1d",
        "90m",
        "2m",
        "90s",
        "0.5s",
    ]
    assert [show_size(value) for value in (128 << 20, 16384, 100, 0)] == ["128MiB", "16KiB", "100", "0"]
