"""What is said about too much."""

from __future__ import annotations

import pytest

from benchmarks.overload import Findings, Flood, Scaling, Weather, text
from benchmarks.quantiles import Spread

WEATHER = Weather(
    offered=300.0,
    served=140.0,
    outcomes={-1: 10, 0: 5, 200: 70, 503: 15},
    p50=0.5,
    p99=1.25,
    refusal_p99=0.004,
    generator_share=0.2,
    peak=1 << 20,
)


def test_whatever_was_not_answered_rightly_was_refused() -> None:
    assert WEATHER.refused == pytest.approx(0.3)


def test_the_tables_say_it() -> None:
    findings = Findings(
        scaling=[Scaling(1000, 8, rate=1234.0, p99=0.0123, ratio=Spread(0.97, 0.95, 0.99))],
        weather={"cnn, X-Wing": {2.0: WEATHER}},
        capacity={"cnn, X-Wing": 150.0},
        floods=[Flood(32, payload=16 << 20, limit=128 << 20, growth=160 << 20, outcomes={200: 7, 503: 25})],
    )
    lines = text(findings).splitlines()
    assert " 1,000     8    1,234   12.3 ms  0.97 [0.95–0.99]" in lines
    (storm,) = [line for line in lines if line.lstrip().startswith("2×")]
    assert storm.split()[:6] == ["2×", "300", "140", "30.0%", "500", "ms"]
    assert storm.endswith("not sent: 10, closed: 5, 200: 70, 503: 15")
    assert "32 × 16 MiB, limit 128 MiB: 160 MiB, 1.25 × the limit; 200: 7, 503: 25" in lines
    assert max(map(len, lines)) <= 140
