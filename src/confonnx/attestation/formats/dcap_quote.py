"""The Intel DCAP quote, versions 3 (SGX), 4 and 5 (TDX), as the SGX ECDSA quote library reference
(appendix A) and the TDX DCAP quoting library (appendix A.3 and A.4) lay it out. No crypto.

::

    header 48 ‖ [v5: body type 2 ‖ body size 4] ‖ body ‖ signature data size 4 ‖ signature data ‖ zero padding
    v3    signature data = quote signature 64 ‖ attestation key 64 ‖ QE part ‖ PCK certification data
    v4 v5 signature data = quote signature 64 ‖ attestation key 64 ‖ type 6, size, (QE part ‖ PCK
    certification data) QE part = QE report 384 ‖ QE report signature 64 ‖ QE authentication data (2-byte size
    first) PCK certification data = type 2 ‖ size 4 ‖ data
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from confonnx.attestation.formats.reader import Reader
from confonnx.errors import EvidenceFormatError

MAX_QUOTE_BYTES: Final = 32 * 1024
INTEL_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")

SGX_BODY_SIZE: Final = 384
TD10_BODY_SIZE: Final = 584
TD15_BODY_SIZE: Final = 648

_ECDSA_P256: Final = 2  # attestation key type
_TEE_SGX: Final = 0x00
_TEE_TDX: Final = 0x81
_PCK_CHAIN: Final = 5  # certification data: the PCK certificate chain as PEM
_QE_REPORT: Final = 6  # certification data: the QE part and its own certification data
_BODY_TYPES: Final = {  # version 5: body type → size
    2: TD10_BODY_SIZE,
    3: TD15_BODY_SIZE,
}


@dataclass(frozen=True, slots=True)
class SgxBody:
    """REPORTBODY of an enclave (Intel SDM vol. 3D, table "REPORT")."""

    cpu_svn: bytes
    misc_select: int
    isv_ext_prod_id: bytes
    attributes: int
    xfrm: int
    mrenclave: bytes
    mrsigner: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    isv_family_id: bytes
    report_data: bytes


@dataclass(frozen=True, slots=True)
class TdBody:
    """TD quote body 1.0, and 1.5 if ``tee_tcb_svn_2`` and ``mr_service_td`` are there."""

    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: int
    td_attributes: int
    xfam: int
    mrtd: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn_2: bytes | None
    mr_service_td: bytes | None


@dataclass(frozen=True, slots=True)
class Quote:
    """A parsed quote. ``signed`` is what the attestation key signed, ``raw`` the quote without its
    padding."""

    version: int
    body: SgxBody | TdBody
    raw: bytes
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: bytes
    qe: SgxBody
    qe_signature: bytes
    qe_auth_data: bytes
    pck_chain: bytes


def parse(data: bytes) -> Quote:
    """Parse one quote, which may be padded with zeros. Raises :class:`EvidenceFormatError`."""
    if len(data) > MAX_QUOTE_BYTES:
        raise EvidenceFormatError(f"quote: {len(data)} bytes, at most {MAX_QUOTE_BYTES} are allowed")
    r = Reader(data, "quote")
    version = _header(r)
    body = _body(r, version)
    signed = data[: r.position]
    signature_data = r.sized(4, "signature data")
    raw = data[: r.position]
    # Some hosts hand out their whole buffer (Google: 8000 bytes); anything but zeros would be a second
    # message.
    r.zeros(r.remaining, "padding")
    s = Reader(signature_data, "quote signature data")
    signature, attestation_key = s.take(64, "quote signature"), s.take(64, "attestation key")
    qe_report, qe_signature, qe_auth_data, pck_chain = _certification(s, version)
    return Quote(
        version=version,
        body=body,
        raw=raw,
        signed=signed,
        signature=signature,
        attestation_key=attestation_key,
        qe_report=qe_report,
        qe=sgx_body(qe_report, "QE report"),
        qe_signature=qe_signature,
        qe_auth_data=qe_auth_data,
        pck_chain=pck_chain,
    )


def sgx_body(data: bytes, what: str) -> SgxBody:
    """Parse a 384-byte report body. Raises :class:`EvidenceFormatError`."""
    r = Reader(data, what)
    body = SgxBody(  # the arguments are read in order, which is that of the layout
        cpu_svn=r.take(16, "CPUSVN"),
        misc_select=int.from_bytes(r.padded(4, 12, "MISCSELECT"), "little"),
        isv_ext_prod_id=r.take(16, "ISVEXTPRODID"),
        attributes=r.u64("ATTRIBUTES.FLAGS"),
        xfrm=r.u64("ATTRIBUTES.XFRM"),
        mrenclave=r.padded(32, 32, "MRENCLAVE"),
        mrsigner=r.padded(32, 32, "MRSIGNER"),
        config_id=r.take(64, "CONFIGID"),
        isv_prod_id=r.u16("ISVPRODID"),
        isv_svn=r.u16("ISVSVN"),
        config_svn=int.from_bytes(r.padded(2, 42, "CONFIGSVN"), "little"),
        isv_family_id=r.take(16, "ISVFAMILYID"),
        report_data=r.take(64, "REPORTDATA"),
    )
    r.end()
    return body


def td_body(data: bytes) -> TdBody:
    """Parse a TD quote body of 584 or 648 bytes. Raises :class:`EvidenceFormatError`."""
    r = Reader(data, "TD quote body")
    is_15 = len(data) == TD15_BODY_SIZE
    body = TdBody(  # the arguments are read in order, which is that of the layout
        tee_tcb_svn=r.take(16, "TEE_TCB_SVN"),
        mr_seam=r.take(48, "MRSEAM"),
        mr_signer_seam=r.take(48, "MRSIGNERSEAM"),
        seam_attributes=r.u64("SEAMATTRIBUTES"),
        td_attributes=r.u64("TDATTRIBUTES"),
        xfam=r.u64("XFAM"),
        mrtd=r.take(48, "MRTD"),
        mr_config_id=r.take(48, "MRCONFIGID"),
        mr_owner=r.take(48, "MROWNER"),
        mr_owner_config=r.take(48, "MROWNERCONFIG"),
        rtmrs=(r.take(48, "RTMR0"), r.take(48, "RTMR1"), r.take(48, "RTMR2"), r.take(48, "RTMR3")),
        report_data=r.take(64, "REPORTDATA"),
        tee_tcb_svn_2=r.take(16, "TEE_TCB_SVN_2") if is_15 else None,
        mr_service_td=r.take(48, "MRSERVICETD") if is_15 else None,
    )
    r.end()
    return body


def _header(r: Reader) -> int:
    version = r.expect(r.u16("version"), frozenset({3, 4, 5}), "version")
    r.expect(r.u16("attestation key type"), frozenset({_ECDSA_P256}), "attestation key type")
    # SGX has stayed with version 3: Intel's quoting library makes no other, and dcap-qvl accepts no other.
    r.expect(r.u32("TEE type"), frozenset({_TEE_SGX if version == 3 else _TEE_TDX}), "TEE type")
    r.take(4, "QE SVN and PCE SVN")  # the signed QE report and the PCK certificate hold the real ones
    vendor = r.take(16, "QE vendor ID")
    if vendor != INTEL_QE_VENDOR:
        raise EvidenceFormatError(
            f"quote: QE vendor ID is {vendor.hex()}, expected Intel's {INTEL_QE_VENDOR.hex()}"
        )
    r.take(20, "user data")
    return version


def _body(r: Reader, version: int) -> SgxBody | TdBody:
    if version == 3:
        return sgx_body(r.take(SGX_BODY_SIZE, "quote body"), "enclave report")
    size = TD10_BODY_SIZE
    if version == 5:
        body_type = r.expect(r.u16("body type"), frozenset(_BODY_TYPES), "body type")
        size = r.expect(r.u32("body size"), frozenset({_BODY_TYPES[body_type]}), "body size")
    return td_body(r.take(size, "quote body"))


def _certification(s: Reader, version: int) -> tuple[bytes, bytes, bytes, bytes]:
    """QE report, its signature, QE authentication data and the PCK certificate chain."""
    if version > 3:
        s.expect(s.u16("certification data type"), frozenset({_QE_REPORT}), "certification data type")
        inner = s.sized(4, "QE report certification data")
        s.end()
        s = Reader(inner, "QE report certification data")
    qe_report, qe_signature = s.take(SGX_BODY_SIZE, "QE report"), s.take(64, "QE report signature")
    qe_auth_data = s.sized(2, "QE authentication data")
    s.expect(s.u16("PCK certification data type"), frozenset({_PCK_CHAIN}), "PCK certification data type")
    pck_chain = s.sized(4, "PCK certificate chain")
    s.end()
    return qe_report, qe_signature, qe_auth_data, pck_chain
