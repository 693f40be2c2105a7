"""The replay window."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confonnx.errors import OverloadedError
from confonnx.server.replay import DateRefusedError, ReplayCache, SeenBeforeError, parse_date

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
WINDOW = timedelta(seconds=120)


def date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


def cache(capacity: int = 1000) -> ReplayCache:
    return ReplayCache(window=WINDOW, capacity=capacity)


def test_second_time_is_refused() -> None:
    replays = cache()
    replays.admit(b"one", date(START), now=START)
    replays.admit(b"two", date(START), now=START)
    with pytest.raises(SeenBeforeError):
        replays.admit(b"one", date(START), now=START)
    assert len(replays) == 2


@given(
    offset=st.integers(-120, 120),
    waits=st.lists(st.integers(0, 90), max_size=8),
    others=st.lists(st.integers(-120, 120), max_size=8),
)
def test_never_admitted_twice_whatever_the_times(offset: int, waits: list[int], others: list[int]) -> None:
    replays, now = cache(), START
    sealed = date(START + timedelta(seconds=offset))
    replays.admit(b"it", sealed, now=now)
    for wait, other in zip(waits, others, strict=False):
        now += timedelta(seconds=wait)
        with suppress(SeenBeforeError, DateRefusedError):
            replays.admit(f"other {now} {other}".encode(), date(now + timedelta(seconds=other)), now=now)
        with pytest.raises((SeenBeforeError, DateRefusedError)):
            replays.admit(b"it", sealed, now=now)


def test_memory_is_given_back() -> None:
    replays, now = cache(), START
    for index in range(600):
        now = START + timedelta(seconds=index)
        replays.admit(str(index).encode(), date(now), now=now)
    assert len(replays) <= 120 + 2 * 8 + 1


def test_clock_turned_back_does_not_admit_what_was_forgotten() -> None:
    replays = cache()
    replays.admit(b"it", date(START), now=START)
    later = START + timedelta(minutes=10)
    replays.admit(b"other", date(later), now=later)
    assert len(replays) == 1
    with pytest.raises(DateRefusedError):
        replays.admit(b"it", date(START), now=START)


def test_full_cache_fails_closed_and_recovers() -> None:
    replays = cache(capacity=2)
    replays.admit(b"1", date(START), now=START)
    replays.admit(b"2", date(START), now=START)
    with pytest.raises(OverloadedError):
        replays.admit(b"3", date(START), now=START)
    with pytest.raises(SeenBeforeError):
        replays.admit(b"1", date(START), now=START)
    later = START + WINDOW + timedelta(seconds=20)
    replays.admit(b"3", date(later), now=later)


@pytest.mark.parametrize("seconds", [-121, 121, 86400 * 365])
def test_dates_outside_the_window(seconds: int) -> None:
    with pytest.raises(DateRefusedError):
        cache().admit(b"it", date(START + timedelta(seconds=seconds)), now=START)


@pytest.mark.parametrize(
    "text",
    [None, "", "Tue, 24 Nov 2026 12:00:00 UTC", "Tue, 24 nov 2026 12:00:00 GMT", "24 Nov 2026 12:00:00 GMT",
     "Tuesday, 24-Nov-26 12:00:00 GMT", "Tue Nov 24 12:00:00 2026", "Tue, 24 Nov 2026 12:00:60 GMT",
     "Tue, 24 Abc 2026 12:00:00 GMT", "Tue, 00 Nov 2026 12:00:00 GMT", "Tue, 24 Nov 0000 12:00:00 GMT",
     "Tue, 24 Nov 2026 12:00:00 GMT ", "Tue, ٢٤ Nov 2026 12:00:00 GMT"],
)  # fmt: skip
def test_only_the_fixed_date_form(text: str | None) -> None:
    assert parse_date(text) is None


def test_fixed_date() -> None:
    assert parse_date("Tue, 24 Nov 2026 12:00:00 GMT") == int(START.timestamp())
