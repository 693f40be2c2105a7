"""The AWS Nitro attestation document: a COSE_Sign1 (RFC 9052 §4.2) around a CBOR map, as the NSM API's
"Attestation process" describes it, with every limit that its section 3.2.2 names. No crypto.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import cbor2

from confonnx.errors import EvidenceFormatError

MAX_DOCUMENT_BYTES: Final = (
    32 * 1024
)  # the NSM device answers with at most 12 KiB (nsm.h, NSM_RESPONSE_MAX_SIZE)
ES384: Final = -35  # RFC 9053 §2.1: ECDSA P-384 with SHA-384
SIGNATURE_SIZE: Final = 96
DIGEST_SIZE: Final = 48

_COSE_SIGN1_TAG: Final = 0xD2  # tag 18; AWS leaves it out
_ALGORITHM: Final = 1  # COSE header parameter
_MAX_DEPTH: Final = 4
_MAX_CERTIFICATE: Final = 1024
_MAX_FIELD: Final = 1024
_MAX_CA_CERTIFICATES: Final = 8
_MAX_PCRS: Final = 32


@dataclass(frozen=True, slots=True)
class NitroDocument:
    """A parsed document. ``signed`` is the Sig_structure, that is, what ``signature`` (r ‖ s) is over."""

    module_id: str
    issued_at: datetime
    pcrs: tuple[tuple[int, bytes], ...]  # by index; 48 bytes each
    certificate: bytes  # DER
    ca_bundle: tuple[bytes, ...]  # DER, root first
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    signed: bytes
    signature: bytes


def parse(data: bytes) -> NitroDocument:
    """Parse exactly one document. Raises :class:`EvidenceFormatError`."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise EvidenceFormatError(
            f"Nitro document: {len(data)} bytes, at most {MAX_DOCUMENT_BYTES} are allowed"
        )
    message = _decode(data[1:] if data[:1] == bytes((_COSE_SIGN1_TAG,)) else data, "COSE_Sign1")
    if not isinstance(message, list) or len(message) != 4:
        raise EvidenceFormatError("Nitro document: not a COSE_Sign1, which is an array of four")
    protected, payload = _bytes(message[0], "protected header", 64), _bytes(message[2], "payload", len(data))
    if _decode(protected, "protected header") != {_ALGORITHM: ES384}:
        raise EvidenceFormatError("Nitro document: the protected header is not exactly {1: -35} (ES384)")
    if message[1] != {}:
        raise EvidenceFormatError("Nitro document: the unprotected header must be empty")
    signature = _bytes(message[3], "signature", SIGNATURE_SIZE)
    if len(signature) != SIGNATURE_SIZE:
        raise EvidenceFormatError(
            f"Nitro document: signature of {len(signature)} bytes, expected {SIGNATURE_SIZE}"
        )
    # Newer modules write the payload as a map of indefinite length.
    fields = _decode(payload, "payload", allow_indefinite=True)
    if not isinstance(fields, dict):
        raise EvidenceFormatError("Nitro document: the payload is no map")
    return _document(fields, _sig_structure(protected, payload), signature)


def _document(fields: Mapping[object, object], signed: bytes, signature: bytes) -> NitroDocument:
    known = {
        "module_id",
        "digest",
        "timestamp",
        "pcrs",
        "certificate",
        "cabundle",
        "public_key",
        "user_data",
        "nonce",
    }
    if not set(fields) <= known:
        raise EvidenceFormatError(f"Nitro document: unknown members {sorted(map(repr, set(fields) - known))}")
    module_id = fields.get("module_id")
    if not isinstance(module_id, str) or not module_id:
        raise EvidenceFormatError("Nitro document: module_id is missing or no text")
    if fields.get("digest") != "SHA384":
        raise EvidenceFormatError(f"Nitro document: digest is {fields.get('digest')!r}, expected 'SHA384'")
    return NitroDocument(
        module_id=module_id,
        issued_at=_timestamp(fields.get("timestamp")),
        pcrs=_pcrs(fields.get("pcrs")),
        certificate=_bytes(fields.get("certificate"), "certificate", _MAX_CERTIFICATE, least=1),
        ca_bundle=_ca_bundle(fields.get("cabundle")),
        public_key=_optional(fields.get("public_key"), "public_key"),
        user_data=_optional(fields.get("user_data"), "user_data"),
        nonce=_optional(fields.get("nonce"), "nonce"),
        signed=signed,
        signature=signature,
    )


def _decode(data: bytes, what: str, *, allow_indefinite: bool = False) -> object:
    stream = io.BytesIO(data)
    # read_size 1, so that what is left in the stream is what was not part of the item.
    decoder = cbor2.CBORDecoder(
        stream,
        read_size=1,
        max_depth=_MAX_DEPTH,
        allow_indefinite=allow_indefinite,
        allow_duplicate_keys=False,
    )
    try:
        value: object = decoder.decode()
    except (cbor2.CBORDecodeError, RecursionError) as error:
        raise EvidenceFormatError(f"Nitro document: {what} is no CBOR: {error}") from error
    if stream.tell() != len(data):
        raise EvidenceFormatError(f"Nitro document: {len(data) - stream.tell()} bytes after the {what}")
    return value


def _sig_structure(protected: bytes, payload: bytes) -> bytes:
    """RFC 9052 §4.4, without external data."""
    encoded: bytes = cbor2.dumps(["Signature1", protected, b"", payload])
    return encoded


def _timestamp(value: object) -> datetime:
    # bool is an int in Python, and the year 9999 is the last that datetime knows.
    if type(value) is not int or not 0 < value < 253_402_300_800_000:
        raise EvidenceFormatError(f"Nitro document: timestamp is {value!r}, expected milliseconds since 1970")
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)


def _pcrs(value: object) -> tuple[tuple[int, bytes], ...]:
    if not isinstance(value, dict) or not 1 <= len(value) <= _MAX_PCRS:
        raise EvidenceFormatError(f"Nitro document: pcrs is no map of 1 to {_MAX_PCRS} registers")
    pcrs: list[tuple[int, bytes]] = []
    for index, digest in value.items():
        if type(index) is not int or not 0 <= index < _MAX_PCRS:
            raise EvidenceFormatError(f"Nitro document: PCR index {index!r}, expected 0 to {_MAX_PCRS - 1}")
        if not isinstance(digest, bytes) or len(digest) != DIGEST_SIZE:
            raise EvidenceFormatError(f"Nitro document: PCR{index} is not of {DIGEST_SIZE} bytes")
        pcrs.append((index, digest))
    return tuple(sorted(pcrs))


def _ca_bundle(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MAX_CA_CERTIFICATES:
        raise EvidenceFormatError(
            f"Nitro document: cabundle is no list of 1 to {_MAX_CA_CERTIFICATES} certificates"
        )
    return tuple(_bytes(entry, "certificate of cabundle", _MAX_CERTIFICATE, least=1) for entry in value)


def _optional(value: object, what: str) -> bytes | None:
    return None if value is None else _bytes(value, what, _MAX_FIELD)


def _bytes(value: object, what: str, most: int, *, least: int = 0) -> bytes:
    if not isinstance(value, bytes) or not least <= len(value) <= most:
        raise EvidenceFormatError(f"Nitro document: {what} is missing, or not {least} to {most} bytes")
    return value
