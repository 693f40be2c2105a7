"""A seeded mutation loop: no coverage feedback, but no dependency either, and every failure can be replayed.

A target takes bytes and returns, or raises what it must not. The test suite runs each for a few seconds;
``python -m tests.fuzz.fuzz_bhttp --seconds 600`` runs one for longer.
"""

from __future__ import annotations

import argparse
import random
import secrets
import time
from collections.abc import Callable, Sequence

INTERESTING = [
    b"\0",
    b"\x01",
    b"\x3f",
    b"\xff",
    b"\x7f\xff",
    b"\x80\0\0\0",
    b"\xbf\xff\xff\xff",
    b"\xff" * 8,
    b"\0" * 40,
]
"""Edges of lengths: zeros, the largest of each size of a variable-length integer, padding."""

Target = Callable[[bytes], None]


def fuzz(target: Target, corpus: Sequence[bytes], *, seed: int, seconds: float) -> int:
    """Run ``target`` on mutations of ``corpus`` for ``seconds`` and return how many.

    The first failure ends it: an ``AssertionError`` with the input, caused by what the target raised.
    """
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    runs = 0
    while time.monotonic() < end:
        data = mutate(rng, corpus)
        try:
            target(data)
        except Exception as error:  # whatever it is, the input belongs to it
            raise AssertionError(f"seed {seed}, run {runs}: input {data.hex()}") from error
        runs += 1
    return runs


def mutate(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """An element of ``corpus`` after one to four changes: bytes set, put in, cut out, doubled, spliced in."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randint(0, len(data))
        end = min(len(data), start + rng.choice((1, 1, 1, 2, 4, 16, 200)))
        match rng.randrange(6):
            case 0 if start < len(data):
                data[start] ^= 1 << rng.randrange(8)
            case 1:
                data[start:end] = rng.choice(INTERESTING)
            case 2:
                data[start:start] = rng.choice(INTERESTING)
            case 3:
                del data[start:end]
            case 4:
                data[start:start] = data[start:end] * rng.randint(1, 3)
            case _:
                other = rng.choice(corpus)
                cut = rng.randint(0, len(other))
                data[start:end] = other[cut : cut + rng.choice((1, 8, 64))]
    return bytes(data)


def main(target: Target, corpus: Sequence[bytes]) -> None:
    """The command line of a fuzz target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60, help="how long to run (default: 60)")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbits(32), help="replay a run (default: random)"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}")
    print(f"{fuzz(target, corpus, seed=options.seed, seconds=options.seconds)} inputs, none did harm")
