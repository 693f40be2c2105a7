"""The few statistics that a report needs. Values are floats of any unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Sample = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the quartiles around it: half of all values lie between ``low`` and ``high``."""

    median: float
    low: float
    high: float


def quantile(values: Sample, q: float) -> float:
    """The value below which the fraction ``q`` of ``values`` lies, linear between neighbours.

    Raises ``ValueError`` without values, and for a fraction outside 0 to 1.
    """
    if len(values) == 0:
        raise ValueError("a quantile needs at least one value")
    return float(np.quantile(np.asarray(values, np.float64), q))


def spread(values: Sample) -> Spread:
    """Median and quartiles. Raises ``ValueError`` without values."""
    return Spread(quantile(values, 0.5), quantile(values, 0.25), quantile(values, 0.75))


def paired_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, ...]:
    """One ratio per round. What disturbs a whole round disturbs both of its figures, and so cancels out.

    Raises ``ValueError`` when the rounds do not pair up, or a denominator is not positive.
    """
    if len(numerators) != len(denominators):
        raise ValueError(f"{len(numerators)} rounds cannot be paired with {len(denominators)}")
    if not all(value > 0 for value in denominators):
        raise ValueError("a ratio needs positive denominators")
    return tuple(above / below for above, below in zip(numerators, denominators, strict=True))
