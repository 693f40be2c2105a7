"""The parts of a policy that say nothing of the TEE: which models, and how old things may be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from confonnx.errors import ConfigurationError

_MODEL_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelDigests:
    """Models by digest, 64 lower-case hex digits each, one or more."""

    digests: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.digests:
            raise ConfigurationError("a policy with no model digest accepts no model; give at least one")
        if wrong := [digest for digest in self.digests if not _MODEL_HASH.fullmatch(digest)]:
            raise ConfigurationError(
                f"model digest: expected 64 lower-case hex digits, found {wrong[0][:80]!r}"
            )


@dataclass(frozen=True, slots=True)
class DangerousAnyModel:
    """Whatever model the server has. The host chooses it then: it can answer from a model of its own
    making.
    """


@dataclass(frozen=True, slots=True)
class Freshness:
    """Bounds on age. The server's clock is the host's to set, so these bound honest servers; the nonce
    bounds the others.

    ``max_statement_age``: how old a statement may be. ``max_clock_skew``: how far the two clocks may be
    apart. ``max_key_age``: how long after its epoch began a key is still sealed to.
    ``max_verification_age``: how long one verification vouches for its keys.
    """

    max_statement_age: timedelta = timedelta(hours=24)
    max_clock_skew: timedelta = timedelta(minutes=5)
    max_key_age: timedelta = timedelta(hours=48)
    max_verification_age: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        ages = (self.max_statement_age, self.max_key_age, self.max_verification_age)
        if min(ages) <= timedelta(0) or self.max_clock_skew < timedelta(0):
            raise ConfigurationError(
                "freshness: every age must be more than zero, and the clock skew not less than zero"
            )


def parse_model_hash(text: str) -> str:
    """64 lower-case hex digits from what people paste: white space around, ``sha256:`` before, a
    ``sha256sum`` file name behind.
    """
    words = text.split(maxsplit=1)
    digest = words[0].lower().removeprefix("sha256:") if words else ""
    if not _MODEL_HASH.fullmatch(digest):
        raise ConfigurationError(
            "the model hash must be 64 hex digits, as `confonnx hash-model` or `sha256sum` prints; found "
            f"{text.strip()[:80]!r}"
        )
    return digest
