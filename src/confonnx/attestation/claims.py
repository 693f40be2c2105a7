"""What verified evidence says: the one vocabulary between the verifiers, which make it, and the policy, which
judges it.

A :class:`Claims` value exists only after a verifier checked every signature and vendor rule below it; it says
what the hardware vouches for and nothing about whether that is welcome. Field names follow the vendor
manuals: Intel SDM vol. 3D and the DCAP quoting library reference, AMD 56860, AWS NSM, TCG TPM 2.0 part 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

# Evidence media types, one per TEE. The bytes are what the hardware gave (SGX, TDX, SNP, Nitro), or our own
# JSON envelope where one TEE needs several parts (Azure, TPM): see attestation/formats/evidence.py.
SGX_QUOTE: Final = "application/vnd.confonnx.sgx-quote"
TDX_QUOTE: Final = "application/vnd.confonnx.tdx-quote"
SEV_SNP_REPORT: Final = "application/vnd.confonnx.sev-snp-report"
AZURE_SNP_EVIDENCE: Final = "application/vnd.confonnx.azure-snp-evidence+json"
AZURE_TDX_EVIDENCE: Final = "application/vnd.confonnx.azure-tdx-evidence+json"
NITRO_DOCUMENT: Final = "application/vnd.confonnx.nitro-document"
TPM_EVIDENCE: Final = "application/vnd.confonnx.tpm-evidence+json"

# Endorsement media types, as they stand in a bundle.
DCAP_COLLATERAL: Final = "application/vnd.confonnx.dcap-collateral+json"
CERTIFICATE_CHAIN: Final = "application/pem-certificate-chain"  # RFC 8555 §9.1
CERTIFICATE_LIST: Final = "application/pkix-crl"  # RFC 2585 §4.2, one DER CRL
# Event logs prove themselves by replay. The first is a TCG crypto-agile log or CCEL, the second is of RTMRs
# only.
EVENT_LOG: Final = "application/vnd.confonnx.tcg-event-log"
JSON_EVENT_LOG: Final = "application/vnd.confonnx.event-log+json"


class Tee(StrEnum):
    """The kinds of evidence that confonnx can verify."""

    SGX = "sgx"
    TDX = "tdx"
    SEV_SNP = "sev-snp"
    AZURE_SNP = "azure-snp"
    AZURE_TDX = "azure-tdx"
    NITRO = "nitro"
    TPM = "tpm"
    SIMULATED = "simulated"


class TcbStatus(StrEnum):
    """How far a platform is behind its vendor's security fixes; the values are Intel's names (PCS API v4, TCB
    Info)."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"
    NOT_APPLICABLE = "NotApplicable"


@dataclass(frozen=True, slots=True)
class Pcr:
    """One platform configuration register: ``value`` has the length of its bank's hash."""

    bank: str  # "sha1", "sha256", "sha384", "sha512"
    index: int
    value: bytes


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event of a log whose replay gave exactly the attested registers.

    ``register`` is a PCR index, or for TDX an RTMR index 0–3. ``digest`` is what the register was extended
    with; ``data`` is the log's own description of it and is *not* attested unless the reader hashes it to
    ``digest``.
    """

    register: int
    kind: int
    digest: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class DcapPlatform:
    """What Intel's collateral says about the CPU that signed an SGX or TDX quote."""

    fmspc: bytes  # 6 bytes
    tcb_date: datetime  # of the TCB level that matched: when it was the current one
    tcb_evaluation_data_number: int  # which TCB recovery the collateral knows of; lower is older
    collateral_issued_at: datetime  # issueDate of the TCB Info
    pce_svn: int
    cpu_svn: bytes  # 16 bytes, of the PCK certificate
    qe_status: TcbStatus
    platform_status: TcbStatus


@dataclass(frozen=True, slots=True)
class SgxClaims:
    """An SGX enclave (Intel SDM vol. 3D, REPORT structure)."""

    mrenclave: bytes  # 32 bytes
    mrsigner: bytes  # 32 bytes
    isv_prod_id: int
    isv_svn: int
    attributes: int  # ATTRIBUTES.FLAGS, 64 bits; bit 1 is DEBUG
    xfrm: int  # ATTRIBUTES.XFRM, 64 bits
    misc_select: int
    cpu_svn: bytes  # 16 bytes
    config_id: bytes  # 64 bytes
    config_svn: int
    isv_family_id: bytes  # 16 bytes
    isv_ext_prod_id: bytes  # 16 bytes
    platform: DcapPlatform


@dataclass(frozen=True, slots=True)
class TdxClaims:
    """A TDX trust domain (TDX DCAP quoting library, TD Quote Body 1.0 and 1.5)."""

    mrtd: bytes  # 48 bytes: the initial memory, that is the virtual firmware
    rtmrs: tuple[bytes, bytes, bytes, bytes]  # 48 bytes each
    td_attributes: int  # 64 bits; bit 0 is DEBUG, bit 28 SEPT_VE_DISABLE
    xfam: int
    mr_config_id: bytes  # 48 bytes
    mr_owner: bytes  # 48 bytes
    mr_owner_config: bytes  # 48 bytes
    mr_seam: bytes  # 48 bytes: the TDX module
    mr_signer_seam: bytes  # 48 bytes: zero for Intel's module
    seam_attributes: int
    tee_tcb_svn: bytes  # 16 component SVNs, one byte each
    tee_tcb_svn_2: bytes | None  # TD 1.5 only: the TDX module that runs now
    mr_service_td: bytes | None  # TD 1.5 only: 48 bytes
    events: tuple[LoggedEvent, ...]  # empty when no event log came along
    platform: DcapPlatform


@dataclass(frozen=True, slots=True)
class SnpTcb:
    """TCB_VERSION of SEV-SNP (AMD 56860 §2.2): one security version per firmware component, 0–255 each."""

    boot_loader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None  # from Turin on


@dataclass(frozen=True, slots=True)
class SevSnpClaims:
    """An SEV-SNP guest (AMD 56860, ATTESTATION_REPORT)."""

    version: int  # of the report
    product: str  # "Milan", "Genoa", "Turin"
    measurement: bytes  # 48 bytes: the launch digest
    host_data: bytes  # 32 bytes, chosen by the host at launch
    id_key_digest: bytes  # 48 bytes; zero without an ID block
    author_key_digest: bytes  # 48 bytes; zero without an author key
    family_id: bytes  # 16 bytes
    image_id: bytes  # 16 bytes
    guest_svn: int
    vmpl: int  # 0–3
    policy: int  # POLICY, 64 bits; bit 19 is DEBUG, bit 18 MIGRATE_MA, bit 16 SMT
    platform_info: int  # PLATFORM_INFO, 64 bits
    current_tcb: SnpTcb
    reported_tcb: SnpTcb  # the one that the signing key was derived for
    committed_tcb: SnpTcb
    launch_tcb: SnpTcb
    report_id: bytes  # 32 bytes
    chip_id: bytes  # 64 bytes; zero when masked
    signing_key: str  # "VCEK" or "VLEK"
    csp_id: str | None  # VLEK only: the cloud that the key was made for


@dataclass(frozen=True, slots=True)
class AzureClaims:
    """An Azure confidential VM: hardware evidence of the paravisor, and the PCRs of the vTPM that it vouches
    for."""

    hardware: SevSnpClaims | TdxClaims
    pcrs: tuple[Pcr, ...]  # by bank, then index
    events: tuple[LoggedEvent, ...]
    vm_id: str | None  # vmUniqueId of the runtime claims
    secure_boot: bool | None
    user_data: bytes  # 64 bytes, from NV index 0x01400002
    firmware_version: int


@dataclass(frozen=True, slots=True)
class NitroClaims:
    """An AWS Nitro enclave (AWS NSM, attestation document)."""

    module_id: str
    issued_at: datetime  # ``timestamp`` of the document
    pcrs: tuple[
        Pcr, ...
    ]  # bank "sha384"; 0 image, 1 kernel, 2 application, 3 role, 4 instance, 8 signing certificate
    user_data: bytes | None
    nonce: bytes | None
    public_key: bytes | None


@dataclass(frozen=True, slots=True)
class TpmClaims:
    """A TPM 2.0 quote. It encrypts no memory: it says what was booted, not that the host cannot look."""

    pcrs: tuple[Pcr, ...]  # by bank, then index
    events: tuple[LoggedEvent, ...]
    firmware_version: int
    reset_count: int
    restart_count: int
    attestation_key: bytes  # SHA-256 of the AK's SubjectPublicKeyInfo
    root: bytes  # SHA-256 of the SubjectPublicKeyInfo of the root that vouches for the AK
    subject: str  # of the AK certificate, RFC 4514


@dataclass(frozen=True, slots=True)
class SimulatedClaims:
    """Simulated evidence: nothing beyond the common claims, and no hardware behind them."""


Details: TypeAlias = (
    SgxClaims | TdxClaims | SevSnpClaims | AzureClaims | NitroClaims | TpmClaims | SimulatedClaims
)


@dataclass(frozen=True, slots=True)
class Claims:
    """What verified evidence says, in terms that every TEE shares, and the TEE's own terms in ``details``.

    ``measurement`` identifies the code as a whole, so that one hash can stand for it in a policy:

    ==========  ==========================================================================  =====
    SGX         MRENCLAVE                                                                     32
    TDX         :func:`tdx_measurement` of MRTD and RTMR0–3 (MRTD alone is only the firmware)  48
    SEV-SNP     MEASUREMENT                                                                   48
    Azure       :func:`azure_measurement` of the launch digest and the PCRs                   32
    Nitro       PCR0                                                                          48
    TPM         :func:`pcr_measurement`                                                       32
    simulated   measurement of the installed code                                             32
    ==========  ==========================================================================  =====

    ``signer`` identifies who signed the code: MRSIGNER (SGX), ID_KEY_DIGEST (SNP, Azure on SNP), PCR8
    (Nitro); None where there is none or the TEE knows no such thing. ``report_data`` is what the evidence
    binds: 64 bytes from a confonnx server, fewer or none in other people's evidence, so compare it as a
    whole. ``valid_until`` is when the first endorsement it rests on expires.
    """

    tee: Tee
    measurement: bytes
    signer: bytes | None
    debug: bool
    report_data: bytes
    security_version: int | None  # ISVSVN, GUEST_SVN
    product_id: int | None  # ISVPRODID
    tcb_status: TcbStatus
    advisories: tuple[str, ...]  # INTEL-SA-…
    valid_until: datetime | None
    details: Details


def tdx_measurement(mrtd: bytes, rtmrs: tuple[bytes, bytes, bytes, bytes]) -> bytes:
    """The 48-byte identity of everything a trust domain measured: SHA-384 over MRTD ‖ RTMR0 ‖ … ‖ RTMR3."""
    return hashlib.sha384(mrtd + b"".join(rtmrs)).digest()


# TCG PC Client platform TPM profile §4.6: PCR 16 (debug) and 23 (application) can be reset by anyone, so they
# say nothing.
RESETTABLE_PCRS: Final = frozenset({16, 23})


def pcr_measurement(pcrs: Iterable[Pcr]) -> bytes:
    """The 32-byte identity of a set of PCRs: SHA-256 over the lines ``bank:index:hex\\n``, sorted by bank and
    index.

    The lines name the registers, so a quote over fewer of them never has the same identity; registers that
    anyone can reset are left out.
    """
    return hashlib.sha256(_pcr_lines(pcrs)).digest()


def azure_measurement(launch: bytes, pcrs: Iterable[Pcr]) -> bytes:
    """The 32-byte identity of an Azure VM: SHA-256 over ``launch:hex\\n`` and the lines of
    :func:`pcr_measurement`.

    ``launch`` is MEASUREMENT (SNP) or MRTD (TDX). It is part of the identity because the PCRs are only as
    true as the paravisor that keeps them: another paravisor could claim any.
    """
    return hashlib.sha256(f"launch:{launch.hex()}\n".encode() + _pcr_lines(pcrs)).digest()


def _pcr_lines(pcrs: Iterable[Pcr]) -> bytes:
    kept = sorted((pcr.bank, pcr.index, pcr.value.hex()) for pcr in pcrs if pcr.index not in RESETTABLE_PCRS)
    return "".join(f"{bank}:{index}:{value}\n" for bank, index, value in kept).encode()
