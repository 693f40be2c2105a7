"""Replay protection for sealed requests (RFC 9458 §6.5, D15): a window of dates, and what was opened in it.

A sealed request carries its date inside, so a replay of it has the same date. Requests are therefore
remembered by date, in buckets of a few seconds, and a bucket is forgotten when every date in it has left the
window. Where the clock is turned back (the host may do that), dates of forgotten buckets stay refused.

A request costs about 100 bytes for the length of the window. When ``capacity`` is reached, requests are
refused until buckets expire: the cache fails closed, and an attacker who fills it has cost us availability
only.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from confonnx.errors import OverloadedError, ReplayError

BUCKET_SECONDS = 8
_MONTHS = {
    name: index
    for index, name in enumerate(
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"], 1
    )
}
_FIXDATE = re.compile(  # RFC 9110 §5.6.7, IMF-fixdate
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)


class DateRefusedError(ReplayError):
    """The date is missing, malformed, or outside the window; a client may correct its clock and retry."""


class SeenBeforeError(ReplayError):
    """This very request was opened before."""


class ReplayCache:
    """What was opened within the window. Mutable; for use by one thread."""

    def __init__(self, *, window: timedelta, capacity: int) -> None:
        """Dates may be ``window`` before or after now; at most ``capacity`` requests are remembered."""
        self._window = window.total_seconds()
        self._capacity = capacity
        self._buckets: dict[int, set[bytes]] = {}
        self._size = 0
        self._floor = 0  # dates (POSIX seconds) below it were forgotten, so they are refused for good
        self._swept = 0

    def __len__(self) -> int:
        """How many requests are remembered."""
        return self._size

    def admit(self, identity: bytes, date: str | None, *, now: datetime) -> None:
        """Remember the request with this ``identity`` and inner ``date`` field, or refuse it.

        ``identity``: 16 bytes of an encapsulated request, 24 of one in a session; since lengths differ,
        neither passes for the other.

        Raises :class:`DateRefusedError`, :class:`SeenBeforeError`, and OverloadedError when the cache is
        full.
        """
        moment, clock = parse_date(date), now.timestamp()
        self._forget(clock)
        if moment is None or abs(moment - clock) > self._window or moment < self._floor:
            raise DateRefusedError("the request's date is missing, or outside the window")
        seen = self._buckets.get(moment // BUCKET_SECONDS)
        if seen is None:
            seen = self._buckets[moment // BUCKET_SECONDS] = set()
        if identity in seen:
            raise SeenBeforeError("the request was seen before")
        if self._size >= self._capacity:
            raise OverloadedError(
                "the server cannot remember more requests for now, and takes none that it could not "
                "recognise again",
                retry_after=BUCKET_SECONDS,
            )
        seen.add(identity)
        self._size += 1

    def _forget(self, clock: float) -> None:
        current = int(clock) // BUCKET_SECONDS
        if current == self._swept:
            return
        self._swept = current
        for bucket in list(self._buckets):
            end = (bucket + 1) * BUCKET_SECONDS
            if end + self._window < clock:
                self._size -= len(self._buckets.pop(bucket))
                self._floor = max(self._floor, end)


@lru_cache(maxsize=64)  # clients of one second send one date
def parse_date(text: str | None) -> int | None:
    """POSIX seconds of an IMF-fixdate; ``None`` for anything else."""
    match = _FIXDATE.fullmatch(text or "")
    if match is None:
        return None
    day, month, year, hour, minute, second = match.groups()
    try:
        moment = datetime(
            int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=UTC
        )
    except (ValueError, KeyError):
        return None
    return int(moment.timestamp())
