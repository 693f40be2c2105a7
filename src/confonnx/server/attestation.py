"""What the server says of itself: the statement, the evidence that binds it, and how often evidence is made.

Evidence without a nonce is made once a key epoch and kept. Evidence with a client's nonce is made on demand,
at a bounded rate, one at a time and off the event loop: a TEE device may take long, and some allow few
reports a second.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from confonnx.attestation.attest.attester import Attester
from confonnx.attestation.bundle import Bundle
from confonnx.attestation.statement import ModelDescription, Statement, StatementLimits, report_data
from confonnx.errors import OverloadedError
from confonnx.keys.ring import KeyRing
from confonnx.ohttp.key_config import encode_key_configs


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays the same in every statement of this process."""

    models: tuple[ModelDescription, ...]
    deployment: str
    server_version: str
    authentication: tuple[str, ...]
    limits: StatementLimits


class TokenBucket:
    """At most ``burst`` at once and ``rate`` a second. Mutable; time comes from ``clock`` (seconds,
    monotonic).
    """

    def __init__(self, *, rate: float, burst: int, clock: Callable[[], float]) -> None:
        """Starts full."""
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._filled_at = clock()

    def take(self) -> None:
        """Take one. Raises OverloadedError that says when there will be one."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1:
            wait = math.ceil((1 - self._tokens) / self._rate)
            raise OverloadedError("too many attestations are asked for", retry_after=wait)
        self._tokens -= 1


class Attestation:
    """Makes bundles. Mutable: it keeps the bundle of the current epoch."""

    def __init__(
        self,
        *,
        ring: KeyRing,
        identity: Identity,
        attester: Attester,
        bucket: TokenBucket,
        now: Callable[[], datetime],
    ) -> None:
        """``now`` gives aware UTC time."""
        self._ring = ring
        self._identity = identity
        self._attester = attester
        self._bucket = bucket
        self._now = now
        self._one_at_a_time = asyncio.Lock()
        self._kept: tuple[int, bytes] | None = None

    async def bundle(self, nonce: bytes | None) -> bytes:
        """A CMW collection (``application/cmw+json``) that binds ``nonce`` (16 to 64 bytes), if there is one.

        Raises OverloadedError over the rate, TeeError when the device fails, and ConfigurationError when the
        clock jumped further than the key ring follows.
        """
        if nonce is not None:
            self._bucket.take()
            async with self._one_at_a_time:
                return await self._make(nonce)
        async with self._one_at_a_time:
            self._ring.advance(self._now())
            if self._kept is None or self._kept[0] != self._ring.epoch:
                epoch = self._ring.epoch
                self._kept = (epoch, await self._make(None))
            return self._kept[1]

    def key_configs(self) -> bytes:
        """``application/ohttp-keys``: the configurations of the current epoch, unproven.

        Raises ConfigurationError when the clock jumped further than the key ring follows.
        """
        keys = self._ring.attested_keys(self._now())
        current: Sequence[int] = [key.epoch for key in keys]
        return encode_key_configs(key.config for key in keys if key.epoch == min(current))

    async def _make(self, nonce: bytes | None) -> bytes:
        now = self._now()
        identity = self._identity
        statement = Statement(
            issued_at=now,
            nonce=nonce,
            keys=self._ring.attested_keys(now),
            models=identity.models,
            deployment=identity.deployment,
            server_version=identity.server_version,
            authentication=identity.authentication,
            limits=identity.limits,
        ).encode()
        evidence, endorsements = await asyncio.to_thread(self._attester.collect, report_data(statement))
        return Bundle(statement, self._attester.evidence_type, evidence, endorsements).encode()
