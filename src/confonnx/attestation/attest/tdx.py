"""Intel TDX: quotes through configfs, and the firmware's event log beside them.

``/dev/tdx_guest`` alone gives a TDREPORT, which only its own CPU can check, so it is not enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from confonnx.attestation.attest import tsm
from confonnx.attestation.attest.attester import Endorsements
from confonnx.attestation.attest.devices import Files, Wait
from confonnx.attestation.claims import EVENT_LOG, TDX_QUOTE, Tee
from confonnx.attestation.formats import dcap_quote, event_log
from confonnx.attestation.formats.dcap_quote import TdBody
from confonnx.errors import EvidenceFormatError, TeeError

DEVICE: Final = "/dev/tdx_guest"
EVENT_LOG_FILE: Final = "/sys/firmware/acpi/tables/data/CCEL"  # UEFI 2.10 §38.4.1, ACPI table CCEL

# RFC 8949 §3.4 and RFC 8392 §6: what a CWT begins with. A quote begins with its version, 4 or 5.
_CWT_BEGINNINGS: Final = (b"\xd8\x3d", b"\xd2", b"\xd8\x62", b"\x84")  # tags 61, 18, 98; a bare COSE_Sign1


@dataclass(frozen=True, slots=True)
class TdxAttester:
    """Collects TD quotes. An ``Attester``."""

    files: Files
    wait: Wait

    @property
    def tee(self) -> Tee:
        """``Tee.TDX``."""
        return Tee.TDX

    @property
    def evidence_type(self) -> str:
        """The media type of the evidence."""
        return TDX_QUOTE

    def collect(self, report_data: bytes) -> tuple[bytes, Endorsements]:
        """A quote that binds ``report_data`` (64 bytes), and the event log if it replays to the quote's
        RTMRs. Raises ``TeeError``."""
        quote = tsm.request_report(self.files, report_data, wait=self.wait).outblob
        if quote.startswith(_CWT_BEGINNINGS):
            raise TeeError(
                f"{tsm.DIRECTORY} gave a CWT (attestation by DICE), which nothing here verifies; expected a "
                "DCAP quote: run on a TDX platform with a quoting enclave"
            )
        return quote, _event_log(self.files, quote)


def find(files: Files, *, wait: Wait) -> TdxAttester | None:
    """The Attester of this trust domain; None outside one. Raises ``TeeError`` for one that cannot attest."""
    if tsm.find_provider(files) == tsm.TDX_GUEST:
        return TdxAttester(files, wait)
    if files.exists(DEVICE):
        raise TeeError(
            f"{DEVICE} is there, but {tsm.DIRECTORY} does not give TDX quotes: the device alone gives only a "
            "TDREPORT, which proves nothing elsewhere; use Linux 6.7 or later with CONFIG_TSM_REPORTS, and "
            "mount configfs"
        )
    return None


def _event_log(files: Files, quote: bytes) -> Endorsements:
    """The log, for policies and people. A verifier refuses one that does not lead to the quote's RTMRs, as
    after an extension that the firmware did not see, so such a log stays here."""
    try:
        log = files.read(EVENT_LOG_FILE)
        body = dcap_quote.parse(quote).body
        replayed = event_log.replay(
            event_log.parse_ccel(log), event_log.RTMR_BANK, range(event_log.RTMR_COUNT)
        )
    except (OSError, EvidenceFormatError):
        return ()  # no log, or none to be read: the registers stand for themselves
    if not isinstance(body, TdBody) or tuple(replayed[i] for i in sorted(replayed)) != body.rtmrs:
        return ()
    return ((EVENT_LOG, log),)
