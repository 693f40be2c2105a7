"""Endorsements that the server fetches, so that clients need no network. Only when its operator chose so: a
server makes no connection of its own otherwise (D14)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from confonnx.attestation.attest.attester import Attester, Endorsements
from confonnx.attestation.claims import Tee
from confonnx.attestation.endorse.endorser import Endorser
from confonnx.attestation.verify.dispatch import merge_endorsements
from confonnx.errors import (
    EndorsementError,
    EvidenceFormatError,
    OverloadedError,
    TeeError,
    TooLargeError,
    TransportError,
)

_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class EndorsingAttester:
    """The ``inner`` Attester, with the vendor's endorsements from ``endorser`` beside its evidence. An
    ``Attester``. Give it an endorser with a cache: clients may ask for evidence many times a second.

    What was fetched takes the place of what the device gave of the same kind.
    """

    inner: Attester
    endorser: Endorser
    now: Callable[[], datetime]

    @property
    def tee(self) -> Tee:
        """That of ``inner``."""
        return self.inner.tee

    @property
    def evidence_type(self) -> str:
        """That of ``inner``."""
        return self.inner.evidence_type

    def collect(self, report_data: bytes) -> tuple[bytes, Endorsements]:
        """As of ``inner``. Raises ``TeeError`` also for endorsements that cannot be had."""
        evidence, endorsements = self.inner.collect(report_data)
        try:
            fetched = self.endorser.collect(
                self.evidence_type, evidence, endorsements, now=self.now(), timeout=_TIMEOUT_SECONDS
            )
        except (
            EndorsementError,
            EvidenceFormatError,
            OverloadedError,
            TooLargeError,
            TransportError,
        ) as error:
            raise TeeError(
                f"endorsements for the evidence of {self.tee} cannot be fetched: {error}; let the server "
                "reach the vendor's service or a PCCS, or leave --fetch-endorsements out, so that "
                "clients fetch them"
            ) from error
        return evidence, tuple(merge_endorsements(endorsements, fetched))
