"""SGX under Gramine: quotes from the pseudo-files in ``/dev/attestation``.

Write REPORT_DATA, then read the quote that binds it (Gramine documentation, "Attestation and Secret
Provisioning"). The files belong to the process and are not safe for threads, so one lock goes around both.
Collateral is not at hand in an enclave: clients fetch it, or the server does (``attest.endorsing``).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from confonnx.attestation.attest.attester import Endorsements
from confonnx.attestation.attest.devices import Files, device_errors
from confonnx.attestation.claims import SGX_QUOTE, Tee
from confonnx.errors import TeeError

DIRECTORY: Final = "/dev/attestation"
_TYPE: Final = f"{DIRECTORY}/attestation_type"
_REPORT_DATA: Final = f"{DIRECTORY}/user_report_data"
_QUOTE: Final = f"{DIRECTORY}/quote"
_DCAP: Final = "dcap"
# Gramine has one error for all that can go wrong between enclave and quoting enclave.
_NO_QUOTE: Final = (
    "Gramine got no quote: check that aesmd runs on the host and its socket is mounted, that "
    "/dev/sgx_provision is passed in, and that the platform is registered with its PCCS"
)

_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class SgxAttester:
    """Collects DCAP quotes. An ``Attester``."""

    files: Files

    @property
    def tee(self) -> Tee:
        """``Tee.SGX``."""
        return Tee.SGX

    @property
    def evidence_type(self) -> str:
        """The media type of the evidence."""
        return SGX_QUOTE

    def collect(self, report_data: bytes) -> tuple[bytes, Endorsements]:
        """A quote that binds ``report_data`` (64 bytes), and no endorsements. Raises ``TeeError``."""
        with _one_at_a_time, device_errors(f"SGX quote from {DIRECTORY}", _NO_QUOTE):
            self.files.write(_REPORT_DATA, report_data)
            return self.files.read(_QUOTE), ()


def find(files: Files) -> SgxAttester | None:
    """The Attester of this enclave; None outside one (``gramine-direct`` has no ``attestation_type``).

    Raises ``TeeError`` for an enclave that cannot attest.
    """
    if not files.exists(_TYPE):
        return None
    with device_errors(_TYPE):
        kind = files.read(_TYPE).rstrip(b"\0\n").decode("ascii", "replace")
    if kind != _DCAP:
        raise TeeError(
            f"{_TYPE} is {kind!r}, expected {_DCAP!r}: this enclave cannot attest; set "
            'sgx.remote_attestation = "dcap" in its manifest'
        )
    return SgxAttester(files)
