"""Where a peer is ahead, the report says so."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.against_peers import losses
from benchmarks.figures import Cell, Results
from benchmarks.generator import Outcome
from benchmarks.load import Timings
from benchmarks.variants import OURS, PEERS, Form, Variant


def results(**latencies: float) -> Results:
    """A round of each variant, named as in ``Variant``; the slower, the fewer requests a second."""
    found = Results()
    for name, latency in latencies.items():
        timings = Timings(
            np.full(3, latency), elapsed=3 * latency, server_cpu=latency, generator_cpu=0.1, others=0.0
        )
        found.add(Cell("server", "tiny", 8, Variant[name]), Outcome(timings, peak=1))
    return found


def test_a_peer_that_is_ahead_is_named_with_both_metrics() -> None:
    assert list(losses(results(SESSION_XWING=2.0, FASTAPI=1.0, KSERVE=5.0))) == [
        "tiny, c = 8: p50 of session X-Wing is 2.00 [2.00–2.00] × that of FastAPI",
        "tiny, c = 8: req/s of session X-Wing is 0.50 [0.50–0.50] × that of FastAPI",
    ]


def test_where_none_is_ahead_none_is_named() -> None:
    assert not list(losses(results(X25519=1.0, TRITON=1.5, MLSERVER=1.5)))


def test_our_own_server_in_the_clear_is_no_sealed_variant() -> None:
    assert not list(losses(results(PLAIN=2.0, FASTAPI=1.0)))


@pytest.mark.parametrize("peer", PEERS)
def test_no_peer_is_sealed_or_ours(peer: Variant) -> None:
    assert peer not in OURS
    assert peer.kem is None
    assert peer.form in (Form.BINARY, Form.JSON, Form.PLAIN_JSON)
