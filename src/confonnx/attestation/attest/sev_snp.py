"""AMD SEV-SNP: reports through configfs, or from ``/dev/sev-guest`` on kernels before 6.7.

Layout of the ioctl's structures: Linux ``include/uapi/linux/sev-guest.h``; their meaning and the errors:
kernel documentation, virt/coco/sev-guest. After an error that it cannot explain, the kernel destroys the key
that speaks to the AMD secure processor, and every later call fails until the VM is restarted: nothing here
asks again unless the device said that it is busy.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from confonnx.attestation.attest import tsm
from confonnx.attestation.attest.attester import REPORT_DATA_SIZE, Endorsements
from confonnx.attestation.attest.certificate_table import parse_table
from confonnx.attestation.attest.devices import PAUSES, Files, Ioctl, Wait, device_errors
from confonnx.attestation.attest.tsm import TsmReport
from confonnx.attestation.claims import SEV_SNP_REPORT, Tee
from confonnx.attestation.formats.snp_report import REPORT_SIZE
from confonnx.errors import TeeError

DEVICE: Final = "/dev/sev-guest"

_GET_EXT_REPORT: Final = 0xC0205302  # _IOWR('S', 2, struct snp_guest_request_ioctl)
_MESSAGE_VERSION: Final = 1
_CERTIFICATES_BYTES: Final = 16 * 1024  # SEV_FW_BLOB_MAX_SIZE, the most that the kernel takes
_RESPONSE_BYTES: Final = 4000  # snp_report_resp
_REPORT_OFFSET: Final = 32  # in it, after status 4, report size 4 and 24 reserved bytes
_VMM_ERROR: Final = 32  # bits of exitinfo2 below the hypervisor's error
_VMM_INVALID_LENGTH: Final = 1
_VMM_BUSY: Final = 2
_AGAIN: Final = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR})


@dataclass(frozen=True, slots=True)
class SevSnpAttester:
    """Collects reports from ``source``, which gives the report and the host's certificate table. An
    ``Attester``."""

    source: Callable[[bytes], TsmReport]

    @property
    def tee(self) -> Tee:
        """``Tee.SEV_SNP``."""
        return Tee.SEV_SNP

    @property
    def evidence_type(self) -> str:
        """The media type of the evidence."""
        return SEV_SNP_REPORT

    def collect(self, report_data: bytes) -> tuple[bytes, Endorsements]:
        """A report that binds ``report_data`` (64 bytes), and the certificates that the host has. Raises
        ``TeeError``."""
        report = self.source(report_data)
        return report.outblob, parse_table(report.auxblob)


def find(files: Files, ioctl: Ioctl, *, wait: Wait) -> SevSnpAttester | None:
    """The Attester of this guest; None outside one. Raises ``TeeError`` for a device that fails."""
    if tsm.find_provider(files) == tsm.SEV_GUEST:
        return SevSnpAttester(partial(tsm.request_report, files, wait=wait))
    if files.exists(DEVICE):
        return SevSnpAttester(partial(request_report, ioctl, wait=wait))
    return None


def request_report(ioctl: Ioctl, report_data: bytes, *, wait: Wait) -> TsmReport:
    """SNP_GET_EXT_REPORT for ``report_data`` (64 bytes). Waits for a busy device. Raises ``TeeError``."""
    for pause in PAUSES:
        report = _try(ioctl, report_data)
        if report is not None:
            return report
        wait(pause)
    raise TeeError(f"{DEVICE}: the host stayed busy, {len(PAUSES)} times; ask for fewer attestations")


class _ReportRequest(ctypes.LittleEndianStructure):
    """snp_ext_report_req with the snp_report_req in it."""

    _fields_ = (
        ("user_data", ctypes.c_uint8 * REPORT_DATA_SIZE),
        ("vmpl", ctypes.c_uint32),
        ("reserved", ctypes.c_uint8 * 28),
        ("certificates_address", ctypes.c_uint64),
        ("certificates_length", ctypes.c_uint32),
    )


class _GuestRequest(ctypes.LittleEndianStructure):
    """snp_guest_request_ioctl."""

    _fields_ = (
        ("message_version", ctypes.c_uint8),
        ("request_address", ctypes.c_uint64),
        ("response_address", ctypes.c_uint64),
        ("exit_info", ctypes.c_uint64),
    )


def _try(ioctl: Ioctl, report_data: bytes) -> TsmReport | None:
    """One call; None if the device is busy."""
    certificates = ctypes.create_string_buffer(_CERTIFICATES_BYTES)
    response = ctypes.create_string_buffer(_RESPONSE_BYTES)
    request = _ReportRequest(
        user_data=(ctypes.c_uint8 * REPORT_DATA_SIZE)(*report_data),
        certificates_address=ctypes.addressof(certificates),
        certificates_length=_CERTIFICATES_BYTES,
    )
    argument = bytearray(
        _GuestRequest(
            message_version=_MESSAGE_VERSION,
            request_address=ctypes.addressof(request),
            response_address=ctypes.addressof(response),
        )
    )
    try:
        ioctl(DEVICE, _GET_EXT_REPORT, argument)
    except OSError as error:
        exit_info = _GuestRequest.from_buffer_copy(argument).exit_info
        if error.errno in _AGAIN or exit_info >> _VMM_ERROR == _VMM_BUSY:
            return None
        with device_errors(f"report from {DEVICE} (exitinfo2 {exit_info:#x})", _advice(error, exit_info)):
            raise
    return TsmReport(_report(response.raw), certificates.raw)


def _advice(error: OSError, exit_info: int) -> str:
    if error.errno == errno.ENOTTY:
        return "the kernel gave up the guest's key after an earlier error; restart the VM"
    if exit_info >> _VMM_ERROR == _VMM_INVALID_LENGTH:
        return f"the host has more than {_CERTIFICATES_BYTES} bytes of certificates, which the kernel refuses"
    return ""


def _report(response: bytes) -> bytes:
    """AMD 56860, MSG_REPORT_RSP: status, then the size of the report."""
    status, size = (int.from_bytes(response[at : at + 4], "little") for at in (0, 4))
    if status != 0 or size != REPORT_SIZE:
        raise TeeError(
            f"{DEVICE}: MSG_REPORT_RSP has status {status:#x} and a report of {size} bytes, expected status "
            f"0 and {REPORT_SIZE} bytes"
        )
    return response[_REPORT_OFFSET : _REPORT_OFFSET + size]
