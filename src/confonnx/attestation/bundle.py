"""The attestation bundle: statement, evidence and endorsements in one CMW collection (RFC 9999), as JSON.

::

    {
      "__cmwc_t":       "urn:uuid:…",                                            what this collection is
      "statement":      ["application/vnd.confonnx.statement+json", "<base64url>"],
      "evidence":       ["application/vnd.confonnx.…", "<base64url>", 4],        4 = evidence
      "endorsements.0": ["…", "<base64url>", 2],                                 2 = endorsements
      "endorsements.1": …
    }

The statement is a record of its own because the evidence binds its exact bytes: nothing between the
server's encoder and the client's hash may rewrite them. Parsing a bundle checks its shape alone; what it
says is believed only after ``verify.appraise``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from confonnx.attestation import base64url, canonical_json
from confonnx.attestation.canonical_json import Json
from confonnx.errors import BundleError

MEDIA_TYPE = "application/cmw+json"
STATEMENT_MEDIA_TYPE = "application/vnd.confonnx.statement+json"

# RFC 9999, the member that tells collections apart; a UUID, because it needs nobody's registration.
COLLECTION_TYPE = "urn:uuid:54422641-0054-5174-a432-f991a45741b0"
_TYPE_MEMBER = "__cmwc_t"
# RFC 9999, bits of the indicator: reference values 0, endorsements 1, evidence 2, attestation results 3.
_ENDORSEMENTS_INDICATOR = 1 << 1
_EVIDENCE_INDICATOR = 1 << 2
_MAX_MEDIA_TYPE = 255


@dataclass(frozen=True, slots=True)
class BundleLimits:
    """Sizes in bytes (before base64url for records, of the JSON text for the whole) and a count."""

    max_bundle_bytes: int = 8 * 2**20
    max_statement_bytes: int = 2 * 2**20
    max_evidence_bytes: int = 1 * 2**20
    max_endorsement_bytes: int = 1 * 2**20
    max_endorsements: int = 16


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a server sends as its attestation. Nothing in it is verified.

    ``statement`` is the exact bytes of a ``statement.Statement``; ``evidence`` is in the layout that
    ``evidence_type``, a media type, names; each endorsement is a media type and its bytes.
    """

    statement: bytes
    evidence_type: str
    evidence: bytes
    endorsements: tuple[tuple[str, bytes], ...] = ()

    def encode(self) -> bytes:
        """The bundle as ``application/cmw+json``."""
        members: dict[str, Json] = {
            _TYPE_MEMBER: COLLECTION_TYPE,
            "statement": [STATEMENT_MEDIA_TYPE, base64url.encode(self.statement)],
            "evidence": [self.evidence_type, base64url.encode(self.evidence), _EVIDENCE_INDICATOR],
        }
        for index, (media_type, value) in enumerate(self.endorsements):
            members[f"endorsements.{index}"] = [media_type, base64url.encode(value), _ENDORSEMENTS_INDICATOR]
        return canonical_json.encode(members)


def parse_bundle(data: bytes, *, limits: BundleLimits | None = None) -> Bundle:
    """The bundle in ``data``, a JSON text. Raises ``BundleError``; sizes are checked before anything is
    decoded.
    """
    limits = limits or BundleLimits()
    if len(data) > limits.max_bundle_bytes:
        raise BundleError(f"the bundle has {len(data)} bytes, the limit is {limits.max_bundle_bytes}")
    members = canonical_json.parse_object(data, what="the bundle")
    if members.get(_TYPE_MEMBER) != COLLECTION_TYPE:
        raise BundleError(
            f"the bundle's {_TYPE_MEMBER} is {members.get(_TYPE_MEMBER)!r}, expected {COLLECTION_TYPE!r}: "
            "this is no confonnx attestation, or one of another version"
        )
    count = sum(name.startswith("endorsements.") for name in members)
    if count > limits.max_endorsements:
        raise BundleError(f"the bundle has {count} endorsements, the limit is {limits.max_endorsements}")
    names = [f"endorsements.{index}" for index in range(count)]
    canonical_json.check_names(
        members, frozenset({_TYPE_MEMBER, "statement", "evidence", *names}), "the bundle"
    )

    statement_type, statement = _record(members, "statement", None, limits.max_statement_bytes)
    if statement_type != STATEMENT_MEDIA_TYPE:
        raise BundleError(f"statement: expected media type {STATEMENT_MEDIA_TYPE}, found {statement_type!r}")
    evidence_type, evidence = _record(members, "evidence", _EVIDENCE_INDICATOR, limits.max_evidence_bytes)
    endorsements = tuple(
        _record(members, name, _ENDORSEMENTS_INDICATOR, limits.max_endorsement_bytes) for name in names
    )
    return Bundle(statement, evidence_type, evidence, endorsements)


def _record(
    members: Mapping[str, Json], name: str, indicator: int | None, max_bytes: int
) -> tuple[str, bytes]:
    """Media type and value of the JSON CMW record (RFC 9999) in ``members[name]``."""
    record = canonical_json.as_array(members[name], name)
    expected = 2 if indicator is None else 3
    if len(record) != expected:
        raise BundleError(f"{name}: expected a CMW record of {expected} elements, found {len(record)}")
    if indicator is not None and canonical_json.as_integer(record[2], f"{name}, indicator") != indicator:
        raise BundleError(f"{name}: expected the CMW indicator {indicator}, found {record[2]}")
    media_type = canonical_json.as_string(record[0], f"{name}, media type")
    if not (0 < len(media_type) <= _MAX_MEDIA_TYPE and media_type.isascii() and media_type.isprintable()):
        raise BundleError(
            f"{name}: expected a media type of 1 to {_MAX_MEDIA_TYPE} printable ASCII characters"
        )
    text = canonical_json.as_string(record[1], f"{name}, value")
    if len(text) > -(-max_bytes * 4 // 3):  # base64url without padding: ⌈4n/3⌉ characters for n bytes
        raise BundleError(f"{name} has about {len(text) * 3 // 4} bytes, the limit is {max_bytes}")
    return media_type, base64url.decode(text, what=name)
