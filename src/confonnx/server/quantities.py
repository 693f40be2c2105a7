"""Durations and sizes as people write them in options: ``24h``, ``30m``, ``90`` (seconds); ``64MiB``,
``4096``.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1,
    "b": 1,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
}
_QUANTITY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([a-z]*)")
_MAX_SECONDS = 10 * 366 * 86400.0


def parse_duration(value: object) -> timedelta:
    """A number of seconds, or text with one of the units ms, s, m, h, d. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    number, unit = _split(value)
    if unit not in _SECONDS or not 0 <= number * _SECONDS[unit] <= _MAX_SECONDS:
        raise ValueError("expected a duration such as 90, 30m or 24h (ms, s, m, h, d; at most ten years)")
    return timedelta(seconds=number * _SECONDS[unit])


def parse_size(value: object) -> int:
    """A number of bytes, or text with one of the units KiB, MiB, GiB, kB, MB, GB. Raises ValueError."""
    number, unit = _split(value)
    if unit not in _BYTES or number * _BYTES[unit] != int(number * _BYTES[unit]):
        raise ValueError("expected a number of bytes, or a size such as 64MiB (KiB, MiB, GiB, kB, MB, GB)")
    return int(number * _BYTES[unit])


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
ByteSize = Annotated[int, BeforeValidator(parse_size)]


def _split(value: object) -> tuple[float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value), ""
    match = _QUANTITY.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    return (float(match[1]), match[2]) if match else (-1.0, "?")


def show_duration(value: timedelta) -> str:
    """The shortest of the forms that :func:`parse_duration` takes back."""
    seconds = value.total_seconds()
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


def show_size(value: int) -> str:
    """The shortest of the forms that :func:`parse_size` takes back."""
    for unit in ("GiB", "MiB", "KiB"):
        if value and value % _BYTES[unit.lower()] == 0:
            return f"{value // _BYTES[unit.lower()]}{unit}"
    return str(value)
