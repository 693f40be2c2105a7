"""The verdict on memory: what is flat, and what is not shown to be."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from benchmarks.soak import fit, text

MIB = 1 << 20


def samples(*, growth: float, noise: float, count: int = 90) -> list[tuple[float, int]]:
    """One every ten seconds around 200 MiB; ``growth`` and ``noise`` (uniform) in MiB."""
    order = random.Random(1)
    return [
        (10.0 * n, int(MIB * (200 + growth * n / (count - 1) + order.uniform(-noise, noise))))
        for n in range(count)
    ]


def test_a_line_has_its_slope_and_no_error() -> None:
    found = fit([(0.0, 100), (10.0, 120), (20.0, 140)])
    assert (found.mean, found.seconds) == (120.0, 20.0)
    assert found.per_second == pytest.approx(2.0)
    assert found.error == pytest.approx(0.0, abs=1e-9)
    assert found.certain == pytest.approx(40 / 120)


def test_noise_without_growth_is_flat() -> None:
    assert fit(samples(growth=0, noise=3)).flat


def test_growth_is_not_flat_even_under_noise() -> None:
    assert not fit(samples(growth=5, noise=3)).flat


def test_noise_that_could_hide_growth_is_not_flat() -> None:
    assert not fit(samples(growth=0, noise=60, count=9)).flat


def test_memory_that_shrinks_is_flat() -> None:
    assert fit(samples(growth=-20, noise=1)).flat


def test_two_samples_have_no_spread() -> None:
    with pytest.raises(ValueError, match="three samples"):
        fit([(0.0, 1), (1.0, 1)])


@pytest.mark.parametrize(("growth", "verdict"), [(0.0, "memory is flat"), (50.0, "NOT shown to be flat")])
def test_the_verdict_is_said(growth: float, verdict: str) -> None:
    found = samples(growth=growth, noise=1)
    said = text(found, fit(found), Counter({"tiny": 12000}))
    assert verdict in said
    assert "tiny: 12,000" in said
