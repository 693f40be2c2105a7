"""Intel's collateral for SGX and TDX quotes: TCB Info, QE Identity and CRLs (PCS API v4), in the JSON form
that PCCS clients pass around: nine members, signatures and CRLs as hexadecimal, the two signed documents as
the exact text that was signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, TypeAlias

import msgspec

from confonnx.attestation.claims import TcbStatus
from confonnx.errors import EndorsementError

MAX_COLLATERAL_BYTES: Final = 1024 * 1024
_CHECK: Final = "dcap.collateral"

Instant: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class Component(msgspec.Struct, frozen=True):
    """One SVN of a TCB level; Intel adds descriptive members."""

    svn: int


class Tcb(msgspec.Struct, frozen=True):
    """The SVNs that a TCB level asks for; ``tdx`` only in TDX collateral."""

    sgx: tuple[Component, ...] = msgspec.field(name="sgxtcbcomponents")
    pce_svn: int = msgspec.field(name="pcesvn")
    tdx: tuple[Component, ...] | None = msgspec.field(name="tdxtcbcomponents", default=None)


class TcbLevel(msgspec.Struct, frozen=True):
    """A TCB level of a platform."""

    tcb: Tcb
    date: Instant = msgspec.field(name="tcbDate")
    status: TcbStatus = msgspec.field(name="tcbStatus")
    advisories: tuple[str, ...] = msgspec.field(name="advisoryIDs", default=())


class IsvSvn(msgspec.Struct, frozen=True):
    """The SVN that an enclave's or module's TCB level asks for."""

    isv_svn: int = msgspec.field(name="isvsvn")


class IsvLevel(msgspec.Struct, frozen=True):
    """A TCB level of the QE or of a TDX module."""

    tcb: IsvSvn
    date: Instant = msgspec.field(name="tcbDate")
    status: TcbStatus = msgspec.field(name="tcbStatus")
    advisories: tuple[str, ...] = msgspec.field(name="advisoryIDs", default=())


class TdxModule(msgspec.Struct, frozen=True):
    """Who signed the TDX module, and which SEAM attributes it may have; all hexadecimal."""

    mrsigner: str
    attributes: str
    attributes_mask: str = msgspec.field(name="attributesMask")


class TdxModuleIdentity(msgspec.Struct, frozen=True):
    """The same for one major version of the TDX module, with its TCB levels."""

    id: str
    mrsigner: str
    attributes: str
    attributes_mask: str = msgspec.field(name="attributesMask")
    levels: tuple[IsvLevel, ...] = msgspec.field(name="tcbLevels")


class TcbInfo(msgspec.Struct, frozen=True):
    """TCB Info, version 3."""

    id: str
    version: int
    issue_date: Instant = msgspec.field(name="issueDate")
    next_update: Instant = msgspec.field(name="nextUpdate")
    fmspc: str
    pce_id: str = msgspec.field(name="pceId")
    evaluation_data_number: int = msgspec.field(name="tcbEvaluationDataNumber")
    levels: tuple[TcbLevel, ...] = msgspec.field(name="tcbLevels")
    tdx_module: TdxModule | None = msgspec.field(name="tdxModule", default=None)
    tdx_modules: tuple[TdxModuleIdentity, ...] = msgspec.field(name="tdxModuleIdentities", default=())


class QeIdentity(msgspec.Struct, frozen=True):
    """Enclave Identity of the Quoting Enclave, version 2."""

    id: str
    version: int
    issue_date: Instant = msgspec.field(name="issueDate")
    next_update: Instant = msgspec.field(name="nextUpdate")
    evaluation_data_number: int = msgspec.field(name="tcbEvaluationDataNumber")
    misc_select: str = msgspec.field(name="miscselect")
    misc_select_mask: str = msgspec.field(name="miscselectMask")
    attributes: str
    attributes_mask: str = msgspec.field(name="attributesMask")
    mrsigner: str
    isv_prod_id: int = msgspec.field(name="isvprodid")
    levels: tuple[IsvLevel, ...] = msgspec.field(name="tcbLevels")


class _Envelope(msgspec.Struct, frozen=True):
    pck_crl_issuer_chain: str
    root_ca_crl: str
    pck_crl: str
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: str
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: str


@dataclass(frozen=True, slots=True)
class DcapCollateral:
    """Parsed collateral, none of it trusted yet. ``text`` is the JSON it came as."""

    text: str
    tcb_info: TcbInfo
    tcb_info_text: bytes
    tcb_info_signature: bytes  # ECDSA P-256, r ‖ s
    tcb_info_chain: bytes  # PEM
    qe_identity: QeIdentity
    qe_identity_text: bytes
    qe_identity_signature: bytes
    qe_identity_chain: bytes
    root_crl: bytes  # DER
    pck_crl: bytes


def parse(data: bytes) -> DcapCollateral:
    """Parse the JSON form. Raises :class:`EndorsementError` (``dcap.collateral``)."""
    if len(data) > MAX_COLLATERAL_BYTES:
        raise EndorsementError(
            _CHECK, f"DCAP collateral has {len(data)} bytes, at most {MAX_COLLATERAL_BYTES} are allowed"
        )
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
        tcb_info = msgspec.json.decode(envelope.tcb_info, type=TcbInfo)
        qe_identity = msgspec.json.decode(envelope.qe_identity, type=QeIdentity)
        return DcapCollateral(
            text=data.decode("utf-8"),
            tcb_info=tcb_info,
            tcb_info_text=envelope.tcb_info.encode("utf-8"),
            tcb_info_signature=bytes.fromhex(envelope.tcb_info_signature),
            tcb_info_chain=envelope.tcb_info_issuer_chain.encode("utf-8"),
            qe_identity=qe_identity,
            qe_identity_text=envelope.qe_identity.encode("utf-8"),
            qe_identity_signature=bytes.fromhex(envelope.qe_identity_signature),
            qe_identity_chain=envelope.qe_identity_issuer_chain.encode("utf-8"),
            root_crl=bytes.fromhex(envelope.root_ca_crl),
            pck_crl=bytes.fromhex(envelope.pck_crl),
        )
    except (ValueError, RecursionError) as error:  # ValueError: msgspec's errors, bad UTF-8, bad hexadecimal
        raise EndorsementError(_CHECK, f"DCAP collateral cannot be read: {error}") from error
