"""The fuzz targets of Oblivious HTTP for a few seconds, so that they cannot rot."""

from __future__ import annotations

import random

import pytest

from confonnx.errors import BhttpError
from confonnx.ohttp.bhttp import parse_request
from tests.fuzz import fuzz_bhttp, fuzz_encapsulation, fuzz_streams
from tests.fuzz.mutator import Target, fuzz, mutate

TARGETS = {
    "bhttp": (fuzz_bhttp.fuzz_bhttp, fuzz_bhttp.CORPUS),
    "encapsulation": (fuzz_encapsulation.fuzz_encapsulation, fuzz_encapsulation.CORPUS),
    "streams": (fuzz_streams.fuzz_streams, fuzz_streams.CORPUS),
}


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    """The unchanged corpus reaches the success paths of its target."""
    target, corpus = TARGETS[name]
    for data in corpus:
        target(data)


@pytest.mark.parametrize("name", TARGETS)
def test_two_seconds(name: str) -> None:
    target, corpus = TARGETS[name]
    assert fuzz(target, corpus, seed=20261124, seconds=2) > 500


def test_mutations_reach_past_the_framing() -> None:
    """A fuzzer whose every input dies at the first byte finds nothing: of ours, some are messages."""
    rng = random.Random(1)
    parsed = 0
    for _ in range(3000):
        try:
            parse_request(mutate(rng, fuzz_bhttp.CORPUS), fuzz_bhttp.LIMITS)
        except BhttpError:
            continue
        parsed += 1
    assert parsed > 100


def test_a_failure_says_how_to_replay_it() -> None:
    def broken(data: bytes) -> None:
        raise IndexError

    target: Target = broken
    with pytest.raises(AssertionError, match=r"seed 5, run 0: input [0-9a-f]*") as caught:
        fuzz(target, [b"abc"], seed=5, seconds=1)
    assert isinstance(caught.value.__cause__, IndexError)
