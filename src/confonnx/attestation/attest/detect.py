"""Which TEE this process runs in, and who collects its evidence.

There is no fall-back: a TEE that was asked for and is not there is an error, and so is no TEE where one is
required. A server that quietly came up simulated would be refused by its clients at best.
"""

from __future__ import annotations

from typing import Protocol, assert_never

from confonnx.attestation.attest.simulated import SimulatedAttester
from confonnx.attestation.claims import Tee
from confonnx.errors import TeeError


class Attester(Protocol):
    """Collects evidence. ``tee`` and ``evidence_type`` (a media type) say of which kind."""

    @property
    def tee(self) -> Tee: ...

    @property
    def evidence_type(self) -> str: ...

    def collect(self, report_data: bytes) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
        """Evidence that binds ``report_data`` (64 bytes), and endorsements as pairs of media type and bytes.

        Raises ``TeeError`` when the device fails.
        """
        ...


def detect(*, forced: Tee | None, require_tee: bool, simulated: SimulatedAttester) -> Attester:
    """The Attester of this machine: of the ``forced`` TEE, else of the one found, else ``simulated``.

    Raises ``TeeError`` when the forced TEE is not there, and when none is and ``require_tee`` is set.
    """
    match forced:
        case None | Tee.SIMULATED:
            if require_tee:
                raise TeeError(
                    "a TEE is required, and this server can attest to none: this version collects simulated "
                    "evidence alone; for a test without protection leave the requirement out"
                )
            return simulated
        case Tee.SGX:
            interface = "/dev/attestation of Gramine"
        case Tee.TDX | Tee.SEV_SNP:
            interface = "/sys/kernel/config/tsm/report"
        case Tee.AZURE_SNP | Tee.AZURE_TDX | Tee.TPM:
            interface = "/dev/tpmrm0"
        case Tee.NITRO:
            interface = "/dev/nsm"
        case _:
            assert_never(forced)
    raise TeeError(
        f"the TEE {forced} was asked for, and this version cannot collect its evidence, which {interface} "
        "gives; nothing else is used in its place"
    )
