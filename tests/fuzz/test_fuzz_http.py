"""The fuzz target of HTTP answers for a few seconds, so that it cannot rot."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.fuzz_http import CORPUS, fuzz_http, read
from tests.fuzz.mutator import fuzz, mutate


@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_corpus(number: int) -> None:
    fuzz_http(CORPUS[number])


def _is_answer(data: bytes) -> bool:
    return read(data[1:], 1 << 20, connect=False)[0] is None


def test_corpus_and_some_mutations_are_answers() -> None:
    """A fuzzer whose every input dies at the first byte finds nothing."""
    rng = random.Random(1)
    assert all(map(_is_answer, CORPUS))
    assert 200 < sum(_is_answer(mutate(rng, CORPUS)) for _ in range(2000)) < 1900


def test_two_seconds_of_http() -> None:
    assert fuzz(fuzz_http, CORPUS, seed=20261124, seconds=2) > 500
