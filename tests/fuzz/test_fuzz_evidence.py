"""The fuzz targets of evidence for a moment each, so that they cannot rot."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz_evidence import TARGETS
from tests.fuzz.mutator import fuzz


@pytest.mark.parametrize("name", TARGETS)
def test_half_a_second(name: str) -> None:
    target, corpus = TARGETS[name]
    assert fuzz(target, corpus, seed=20261124, seconds=0.5) > 50
