"""AWS Nitro Enclaves: attestation documents from the security module behind ``/dev/nsm``.

One ioctl carries a CBOR request and its answer (Linux ``include/uapi/linux/nsm.h``; AWS NSM API,
"Attestation process"). The document brings all of its certificates, so there are no endorsements.
"""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass
from typing import Final

import cbor2

from confonnx.attestation.attest.attester import Endorsements
from confonnx.attestation.attest.devices import Files, Ioctl, device_errors
from confonnx.attestation.claims import NITRO_DOCUMENT, Tee
from confonnx.errors import TeeError

DEVICE: Final = "/dev/nsm"

_RAW: Final = 0xC0200A00  # _IOWR(0x0A, 0, struct nsm_raw)
_RESPONSE_BYTES: Final = 0x3000  # NSM_RESPONSE_MAX_SIZE
_ADVICE: Final = {
    errno.EMSGSIZE: "the request or the answer is too large for the security module",
    errno.EACCES: "the server needs CAP_SYS_ADMIN in the enclave, as root there has",
    errno.EPERM: "the server needs CAP_SYS_ADMIN in the enclave, as root there has",
}


@dataclass(frozen=True, slots=True)
class NitroAttester:
    """Collects attestation documents. An ``Attester``."""

    ioctl: Ioctl

    @property
    def tee(self) -> Tee:
        """``Tee.NITRO``."""
        return Tee.NITRO

    @property
    def evidence_type(self) -> str:
        """The media type of the evidence."""
        return NITRO_DOCUMENT

    def collect(self, report_data: bytes) -> tuple[bytes, Endorsements]:
        """A document whose ``user_data`` is ``report_data`` (64 bytes), and no endorsements. Raises
        ``TeeError``."""
        request = {"Attestation": {"user_data": report_data, "nonce": None, "public_key": None}}
        return _document(_exchange(self.ioctl, cbor2.dumps(request))), ()


def find(files: Files, ioctl: Ioctl) -> NitroAttester | None:
    """The Attester of this enclave; None outside one."""
    return NitroAttester(ioctl) if files.exists(DEVICE) else None


class _Raw(ctypes.LittleEndianStructure):
    """nsm_raw: two nsm_iovec."""

    _fields_ = (
        ("request_address", ctypes.c_uint64),
        ("request_length", ctypes.c_uint64),
        ("response_address", ctypes.c_uint64),
        ("response_length", ctypes.c_uint64),
    )


def _exchange(ioctl: Ioctl, message: bytes) -> bytes:
    request = ctypes.create_string_buffer(message, len(message))
    response = ctypes.create_string_buffer(_RESPONSE_BYTES)
    argument = bytearray(
        _Raw(
            request_address=ctypes.addressof(request),
            request_length=len(message),
            response_address=ctypes.addressof(response),
            response_length=_RESPONSE_BYTES,
        )
    )
    try:
        ioctl(DEVICE, _RAW, argument)
    except OSError as error:
        with device_errors(f"attestation document from {DEVICE}", _ADVICE.get(error.errno or 0, "")):
            raise
    length: int = _Raw.from_buffer_copy(argument).response_length  # the kernel writes the answer's here
    return response.raw[:length]


def _document(answer: bytes) -> bytes:
    try:
        decoded = cbor2.loads(answer)
    except (cbor2.CBORDecodeError, ValueError) as error:
        raise TeeError(f"{DEVICE}: the security module's answer is no CBOR: {error}") from error
    match decoded:
        case {"Attestation": {"document": bytes(document)}}:
            return document
        case {"Error": str(name)}:
            raise TeeError(f"{DEVICE}: the security module refuses to attest: {name[:80]}")
        case _:
            raise TeeError(f"{DEVICE}: the security module's answer is no attestation")
