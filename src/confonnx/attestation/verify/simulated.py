"""Simulated evidence: the same path as hardware evidence, and no proof of anything.

The private half of the root that signs it is derived from a constant in this file. **Anyone can make
simulated evidence that says anything**; it exists so that everything around the hardware can run and be
tested without any. A policy accepts it only when it names ``simulated``, and no shipped policy does.

::

    evidence  = {"body":"<base64url>","root":"<base64url>","signature":"<base64url>"}         canonical JSON
    body      = {"debug":false,"measurement":"<64 hex>","product_id":0,"report_data":"<128 hex>",
                 "security_version":0,"signer":"<64 hex>" or null,"version":1}                canonical JSON
    signature = Ed25519(root key, "confonnx simulated evidence v1" ‖ 00 ‖ body)
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from confonnx.attestation import base64url, canonical_json
from confonnx.attestation.canonical_json import Json
from confonnx.attestation.claims import Claims, SimulatedClaims, TcbStatus, Tee
from confonnx.attestation.verify.steps import UNTRACED, Checks, CheckTable
from confonnx.errors import BundleError, EvidenceError, EvidenceFormatError

SIMULATED_EVIDENCE: Final = "application/vnd.confonnx.simulated-evidence+json"

ROOT_KEY_SHA256: Final = "732234ee841852d1ef64d81c49eab0e4afeec7a31e044876f11cc40efc3deadb"
"""SHA-256 of the root's raw public key (RFC 8032), pinned as a vendor's root is."""

VERSION: Final = 1
MEASUREMENT_SIZE: Final = 32
REPORT_DATA_SIZE: Final = 64
MAX_EVIDENCE: Final = 4096
_SIGNATURE_LABEL: Final = b"confonnx simulated evidence v1\0"
_ROOT_LABEL: Final = b"confonnx simulated root v1: this key is public, evidence under it proves nothing"
_SMALL: Final = 2**16
_HEX = re.compile(r"(?:[0-9a-f]{2})*")


@dataclass(frozen=True, slots=True)
class SimulatedReport:
    """The signed part of simulated evidence."""

    measurement: bytes  # 32 bytes
    signer: bytes | None  # 32 bytes
    debug: bool
    report_data: bytes  # 64 bytes
    product_id: int
    security_version: int

    def encode(self) -> bytes:
        """The body's canonical JSON."""
        return canonical_json.encode(
            {
                "debug": self.debug,
                "measurement": self.measurement.hex(),
                "product_id": self.product_id,
                "report_data": self.report_data.hex(),
                "security_version": self.security_version,
                "signer": None if self.signer is None else self.signer.hex(),
                "version": VERSION,
            }
        )


CHECKS: Final[CheckTable] = {
    "simulated.format": (
        "the evidence parses, in its one canonical spelling",
        "use client and server of matching versions",
    ),
    "simulated.root": ("it names the simulated root", "use client and server of matching versions"),
    "simulated.signature": ("the root signed the body", "do not use it: it was changed"),
}


def verify(evidence: bytes, *, checks: Checks = UNTRACED) -> Claims:
    """The claims of simulated ``evidence``, after :data:`CHECKS`. It never expires and needs no endorsements.

    Raises ``EvidenceFormatError`` or ``EvidenceError``.
    """
    with checks.run("simulated.format"):
        body, root, signature, report = _parse(evidence)
    with checks.run("simulated.root"):
        _check_root(root)
    with checks.run("simulated.signature"):
        _check_signature(root, signature, body)
    return Claims(
        tee=Tee.SIMULATED,
        measurement=report.measurement,
        signer=report.signer,
        debug=report.debug,
        report_data=report.report_data,
        security_version=report.security_version,
        product_id=report.product_id,
        tcb_status=TcbStatus.NOT_APPLICABLE,
        advisories=(),
        valid_until=None,
        details=SimulatedClaims(),
    )


def sign(report: SimulatedReport) -> bytes:
    """Simulated evidence of ``report``, which nobody vouches for: the signing key is public."""
    body = report.encode()
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(_ROOT_LABEL).digest())
    return canonical_json.encode(
        {
            "body": base64url.encode(body),
            "root": base64url.encode(key.public_key().public_bytes_raw()),
            "signature": base64url.encode(key.sign(_SIGNATURE_LABEL + body)),
        }
    )


def _parse(evidence: bytes) -> tuple[bytes, bytes, bytes, SimulatedReport]:
    try:
        body, root, signature = _parse_envelope(evidence)
        return body, root, signature, _parse_body(body)
    except BundleError as error:
        raise EvidenceFormatError(f"simulated evidence: {error}") from error


def _check_root(root: bytes) -> None:
    found = hashlib.sha256(root).hexdigest()
    if found != ROOT_KEY_SHA256:
        raise EvidenceError(
            "simulated.root",
            f"simulated evidence is signed under the root {found}, expected {ROOT_KEY_SHA256}",
        )


def _check_signature(root: bytes, signature: bytes, body: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(root).verify(signature, _SIGNATURE_LABEL + body)
    except InvalidSignature as error:
        raise EvidenceError(
            "simulated.signature", "the signature of the simulated evidence does not hold"
        ) from error


def _parse_envelope(evidence: bytes) -> tuple[bytes, bytes, bytes]:
    if len(evidence) > MAX_EVIDENCE:
        raise BundleError(f"expected at most {MAX_EVIDENCE} bytes, found {len(evidence)}")
    members = canonical_json.parse_object(evidence, what="envelope")
    canonical_json.check_names(members, frozenset({"body", "root", "signature"}), "envelope")
    if canonical_json.encode(members) != evidence:
        raise BundleError("the envelope is not in canonical form")
    body, root, signature = (
        base64url.decode(canonical_json.as_string(members[name], name), what=name)
        for name in ("body", "root", "signature")
    )
    return body, root, signature


def _parse_body(body: bytes) -> SimulatedReport:
    members = canonical_json.parse_object(body, what="body")
    if members.get("version") != VERSION:
        raise BundleError(f"version: expected {VERSION}, found {members.get('version')!r}")
    canonical_json.check_names(members, _BODY_MEMBERS, "body")
    report = SimulatedReport(
        measurement=_hex(members["measurement"], "measurement", MEASUREMENT_SIZE),
        signer=None if members["signer"] is None else _hex(members["signer"], "signer", MEASUREMENT_SIZE),
        debug=canonical_json.as_boolean(members["debug"], "debug"),
        report_data=_hex(members["report_data"], "report_data", REPORT_DATA_SIZE),
        product_id=_small(members["product_id"], "product_id"),
        security_version=_small(members["security_version"], "security_version"),
    )
    if report.encode() != body:
        raise BundleError("the body is not in canonical form")
    return report


_BODY_MEMBERS = frozenset(
    ["debug", "measurement", "product_id", "report_data", "security_version", "signer", "version"]
)


def _hex(value: Json, what: str, size: int) -> bytes:
    text = canonical_json.as_string(value, what)
    if len(text) != 2 * size or not _HEX.fullmatch(text):
        raise BundleError(f"{what}: expected {2 * size} lower-case hex digits, found {text[:140]!r}")
    return bytes.fromhex(text)


def _small(value: Json, what: str) -> int:
    number = canonical_json.as_integer(value, what)
    if number >= _SMALL:
        raise BundleError(f"{what}: expected less than {_SMALL}, found {number}")
    return number
