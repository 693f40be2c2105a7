"""Which TCB level a CPU, its Quoting Enclave and its TDX module are on (Intel PCS API v4, "Get TCB Info", and
the TCB rules of Intel's SGX and TDX attestation: a level matches if every SVN is at least the level's, and
the first that matches counts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from confonnx.attestation.claims import TcbStatus
from confonnx.attestation.formats.dcap_collateral import (
    IsvLevel,
    TcbInfo,
    TcbLevel,
    TdxModule,
    TdxModuleIdentity,
)
from confonnx.attestation.formats.dcap_quote import SgxBody, TdBody
from confonnx.attestation.formats.pck_extension import PckExtension
from confonnx.attestation.verify.steps import Checks
from confonnx.errors import EvidenceError

_COMPONENTS: Final = 16

# What an out-of-date QE or TDX module makes of the status of the platform.
_OUT_OF_DATE: Final = {
    TcbStatus.UP_TO_DATE: TcbStatus.OUT_OF_DATE,
    TcbStatus.SW_HARDENING_NEEDED: TcbStatus.OUT_OF_DATE,
    TcbStatus.CONFIGURATION_NEEDED: TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
}


@dataclass(frozen=True, slots=True)
class Standing:
    """The verdict on a platform. ``date`` is the oldest of the matching levels."""

    status: TcbStatus
    platform_status: TcbStatus
    advisories: tuple[str, ...]
    date: datetime


def standing(
    info: TcbInfo, pck: PckExtension, body: SgxBody | TdBody, qe: IsvLevel, checks: Checks
) -> Standing:
    """Combine the levels of platform, TDX module and QE into one status.

    Raises :class:`EvidenceError`: ``dcap.tcb-level`` (no level matches) or ``tdx.module`` (not a module that
    Intel signed).
    """
    with checks.run("dcap.tcb-level"):
        platform = _platform_level(info, pck, body.tee_tcb_svn if isinstance(body, TdBody) else None)
    levels: list[TcbLevel | IsvLevel] = [platform]
    platform_status = platform.status
    if isinstance(body, TdBody):
        with checks.run("tdx.module"):
            module = _module_level(info, body)
        if module is not None:
            levels.append(module)
            platform_status = _worse(platform_status, module.status)
    levels.append(qe)
    return Standing(
        status=_worse(platform_status, qe.status),
        platform_status=platform_status,
        advisories=tuple(sorted({advisory for level in levels for advisory in level.advisories})),
        date=min(level.date for level in levels),
    )


def isv_level(levels: Sequence[IsvLevel], isv_svn: int, what: str) -> IsvLevel:
    """The level of an enclave or module with ``isv_svn``. Raises :class:`EvidenceError`
    (``dcap.tcb-level``)."""
    for level in levels:
        if isv_svn >= level.tcb.isv_svn:
            return level
    raise EvidenceError("dcap.tcb-level", f"no TCB level of the {what} is as low as its SVN {isv_svn}")


def _platform_level(info: TcbInfo, pck: PckExtension, tee_tcb_svn: bytes | None) -> TcbLevel:
    for level in info.levels:
        if _reaches(level, pck, tee_tcb_svn):
            return level
    raise EvidenceError(
        "dcap.tcb-level",
        f"no TCB level of the collateral is as low as this platform (components {pck.components}, PCESVN "
        f"{pck.pce_svn}, TEE_TCB_SVN {tee_tcb_svn.hex() if tee_tcb_svn else 'none'}); update its firmware",
    )


def _reaches(level: TcbLevel, pck: PckExtension, tee_tcb_svn: bytes | None) -> bool:
    wanted = tuple(component.svn for component in level.tcb.sgx)
    if len(wanted) != _COMPONENTS or pck.pce_svn < level.tcb.pce_svn:
        return False
    if any(have < want for have, want in zip(pck.components, wanted, strict=True)):
        return False
    if tee_tcb_svn is None:
        return True
    tdx = tuple(component.svn for component in level.tcb.tdx or ())
    # TEE_TCB_SVN[1] is the module's major version. From 1 on, bytes 0 and 1 are judged by the module's own
    # identity.
    start = 2 if tee_tcb_svn[1] else 0
    return len(tdx) == _COMPONENTS and all(
        have >= want for have, want in zip(tee_tcb_svn[start:], tdx[start:], strict=True)
    )


def _module_level(info: TcbInfo, body: TdBody) -> IsvLevel | None:
    """Check who signed the TDX module, and find its level. Version 0 has no level of its own."""
    version = body.tee_tcb_svn[1]
    if version == 0:
        _check_module(info.tdx_module, body)
        return None
    for identity in info.tdx_modules:
        if identity.id.upper() == f"TDX_{version:02X}":
            _check_module(identity, body)
            return isv_level(identity.levels, body.tee_tcb_svn[0], f"TDX module {identity.id}")
    raise EvidenceError("tdx.module", f"the collateral knows no TDX module of version {version}")


def _check_module(expected: TdxModule | TdxModuleIdentity | None, body: TdBody) -> None:
    if expected is None:
        raise EvidenceError("tdx.module", "the collateral says nothing about TDX modules")
    if body.mr_signer_seam.hex() != expected.mrsigner.lower():
        raise EvidenceError(
            "tdx.module", f"MRSIGNERSEAM is {body.mr_signer_seam.hex()}, expected {expected.mrsigner.lower()}"
        )
    attributes = body.seam_attributes.to_bytes(8, "little")
    if not matches(attributes, expected.attributes, expected.attributes_mask):
        raise EvidenceError(
            "tdx.module",
            f"SEAMATTRIBUTES is {attributes.hex()}, expected {expected.attributes} under mask "
            f"{expected.attributes_mask}",
        )


def matches(found: bytes, expected: str, mask: str) -> bool:
    """Whether ``found`` equals the hexadecimal ``expected`` wherever the hexadecimal ``mask`` has a one."""
    try:
        want, under = bytes.fromhex(expected), bytes.fromhex(mask)
    except ValueError:
        return False
    if not len(want) == len(under) == len(found):
        return False
    return all(f & m == w for f, w, m in zip(found, want, under, strict=True))


def _worse(status: TcbStatus, part: TcbStatus) -> TcbStatus:
    """The status of a platform, given that of its QE or TDX module, which are UpToDate, OutOfDate or
    Revoked."""
    if TcbStatus.REVOKED in (status, part):
        return TcbStatus.REVOKED
    return status if part is TcbStatus.UP_TO_DATE else _OUT_OF_DATE.get(status, status)
