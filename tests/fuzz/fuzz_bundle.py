"""Fuzz target: whatever a server sends as its attestation is refused with a documented error, or is the
good one.

Run with ``python tests/fuzz/fuzz_bundle.py --seconds 600 [--seed N]``. The inputs are mutations of a good
bundle, of its statement and of its evidence, and mutations are cut, repeated, spliced and replaced by the
tokens that JSON and base64url are made of. A finding prints the input in hex and ends the run with exit
code 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from confonnx.attestation.bundle import Bundle, parse_bundle
from confonnx.attestation.claims import (
    CERTIFICATE_CHAIN,
    CERTIFICATE_LIST,
    DCAP_COLLATERAL,
    EVENT_LOG,
    JSON_EVENT_LOG,
)
from confonnx.attestation.policy import Policy
from confonnx.attestation.verify.appraise import appraise
from confonnx.attestation.verify.dispatch import EVIDENCE_TYPES
from confonnx.errors import BundleError, ConfigurationError, VerificationError
from tests.support.simulated_server import NONCE, NOW, bundle, policy

_JSON_TOKENS = '{ } [ ] , : " \\ \\ud800 \\u0000 null true -1 1e9 1.5 "a": é = -_ 4294967296'
_TOKENS = (
    *(token.encode() for token in _JSON_TOKENS.split()),
    *(b"9" * 400, b"[" * 2000, b"\xff", b"0001-01-01T00:00:00Z", b"9999-12-31T23:59:59Z"),
)
_GOOD = bundle()
_POLICY = policy()


def check(data: bytes) -> None:
    """The invariant for one input: a documented error, or a bundle that says what the good one says."""
    try:
        parsed = parse_bundle(data)
        assert parse_bundle(parsed.encode()) == parsed
        appraise(parsed, _POLICY, nonce=NONCE, now=NOW)
    except (BundleError, VerificationError):
        return
    assert (parsed.statement, parsed.evidence) == (_GOOD.statement, _GOOD.evidence)


def check_policy(text: str) -> None:
    """A policy text gives a policy that returns from its own text, or a ``ConfigurationError``."""
    try:
        parsed = Policy.from_toml(text)
    except ConfigurationError:
        return
    assert Policy.from_toml(parsed.to_toml()) == parsed


def mutate(data: bytes, source: random.Random) -> bytes:
    """``data`` with one to four random changes."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(changed) + 1)
        to = min(len(changed), at + source.randrange(1, 40))
        match source.randrange(6):
            case 0:
                changed[at:to] = b""
            case 1:
                changed[at:at] = changed[at:to]
            case 2:
                changed[at:at] = source.choice(_TOKENS)
            case 3:
                changed[at:to] = source.choice(_TOKENS)
            case 4:
                changed[at : at + 1] = bytes([source.randrange(256)])
            case _:
                del changed[at:]
    return bytes(changed)


def cases(source: random.Random) -> bytes:
    """One bundle, changed as a whole or inside its records."""
    match source.randrange(4):
        case 0:
            return mutate(_GOOD.encode(), source)
        case 1:
            return replace(_GOOD, statement=mutate(_GOOD.statement, source)).encode()
        case 2:
            return replace(_GOOD, evidence=mutate(_GOOD.evidence, source)).encode()
        case _:
            return _relabelled(source).encode()


def _relabelled(source: random.Random) -> Bundle:
    kind = source.choice((*EVIDENCE_TYPES, "application/octet-stream"))
    evidence = source.choice(
        (_GOOD.evidence, mutate(_GOOD.evidence, source), source.randbytes(source.randrange(1300)))
    )
    types = (DCAP_COLLATERAL, CERTIFICATE_CHAIN, CERTIFICATE_LIST, EVENT_LOG, JSON_EVENT_LOG)
    endorsements = tuple((source.choice(types), mutate(b"{}", source)) for _ in range(source.randrange(3)))
    return replace(_GOOD, evidence_type=kind, evidence=evidence, endorsements=endorsements)


def run(*, seconds: float, seed: int) -> int:
    """Checks inputs until the time is over; how many there were."""
    source = random.Random(seed)
    end = time.monotonic() + seconds
    text = _POLICY.to_toml().encode()
    count = 0
    while time.monotonic() < end:
        data = cases(source)
        try:
            check(data)
            data = mutate(text, source)
            check_policy(data.decode("utf-8", "replace"))
        except BaseException:
            print(f"seed {seed}, input {count}: {data.hex()}", file=sys.stderr)
            raise
        count += 1
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{run(seconds=arguments.seconds, seed=arguments.seed)} inputs, no finding")
