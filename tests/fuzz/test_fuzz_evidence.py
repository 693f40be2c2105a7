"""The fuzz targets of evidence for a moment each, so that they cannot rot."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz_evidence import TARGETS
from tests.fuzz.mutator import fuzz

# A mutated CRL may name its issuer's serial number, and that be zero.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")


@pytest.mark.parametrize("name", TARGETS)
def test_half_a_second(name: str) -> None:
    target, corpus = TARGETS[name]
    assert fuzz(target, corpus, seed=20261124, seconds=0.5) > 50
