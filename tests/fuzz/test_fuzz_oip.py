"""The fuzz target of the inference protocol for a few seconds, so that it cannot rot."""

from __future__ import annotations

import random

import pytest

from confonnx.errors import InvalidInputError, OipError
from confonnx.oip.binary import parse_infer_request, parse_infer_response
from tests.fuzz.fuzz_oip import CORPUS, LIMITS, VARIANTS, fuzz_oip, unframed
from tests.fuzz.mutator import fuzz, mutate


@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_corpus(number: int) -> None:
    fuzz_oip(CORPUS[number])


def _parses(data: bytes) -> bool:
    body, header_length = unframed(data)
    for parse in (parse_infer_request, parse_infer_response):
        try:
            parse(body, header_length=header_length, limits=LIMITS)
        except (OipError, InvalidInputError):
            continue
        return True
    return False


def test_every_variant() -> None:
    for variant in VARIANTS:
        fuzz_oip(variant)


def test_corpus_and_some_mutations_are_messages() -> None:
    """A fuzzer whose every input dies at the first byte finds nothing."""
    rng = random.Random(1)
    assert sum(map(_parses, CORPUS)) == len(CORPUS) - 2  # metadata, and a raw request without its model
    assert sum(map(_parses, VARIANTS)) > 400
    assert sum(_parses(mutate(rng, CORPUS)) for _ in range(2000)) > 20


def test_two_seconds_of_oip() -> None:
    assert fuzz(fuzz_oip, CORPUS + VARIANTS, seed=20261124, seconds=2) > 500
