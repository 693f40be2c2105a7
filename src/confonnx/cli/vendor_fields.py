"""Evidence and endorsements as nested members, named as the vendor's manual names them. Verifies nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, TypeAlias

from cryptography import x509

from confonnx.attestation.claims import Pcr, SnpTcb, azure_measurement, pcr_measurement, tdx_measurement
from confonnx.attestation.formats import (
    azure_hcl,
    dcap_collateral,
    dcap_quote,
    event_log,
    evidence,
    nitro_document,
    pck_extension,
    snp_report,
    tpm,
)
from confonnx.attestation.formats.azure_hcl import HardwareReport
from confonnx.attestation.formats.dcap_quote import SgxBody, TdBody
from confonnx.attestation.formats.event_log import EventLog
from confonnx.attestation.formats.evidence import AzureEvidence
from confonnx.attestation.verify import simulated
from confonnx.attestation.verify.sgx import ATTRIBUTES_DEBUG
from confonnx.attestation.verify.tdx import MIGRATABLE, SEPT_VE_DISABLE, TUD
from confonnx.attestation.verify.x509 import parse_certificate, parse_chain, parse_crl
from confonnx.cli.recognise import Kind

Members: TypeAlias = dict[str, object]

#: Field name in our types → the vendor's name. None: said elsewhere, or the very bytes that are described.
SNP_REPORT: Final[Mapping[str, str | None]] = {  # AMD 56860, ATTESTATION_REPORT
    "version": "VERSION",
    "guest_svn": "GUEST_SVN",
    "policy": "POLICY",
    "family_id": "FAMILY_ID",
    "image_id": "IMAGE_ID",
    "vmpl": "VMPL",
    "signature_algo": "SIGNATURE_ALGO",
    "current_tcb": "CURRENT_TCB",
    "platform_info": "PLATFORM_INFO",
    "key_info": "KEY_INFO",
    "report_data": "REPORT_DATA",
    "measurement": "MEASUREMENT",
    "host_data": "HOST_DATA",
    "id_key_digest": "ID_KEY_DIGEST",
    "author_key_digest": "AUTHOR_KEY_DIGEST",
    "report_id": "REPORT_ID",
    "report_id_ma": "REPORT_ID_MA",
    "reported_tcb": "REPORTED_TCB",
    "product": "product (of CPUID_FAM_ID, CPUID_MOD_ID)",
    "chip_id": "CHIP_ID",
    "committed_tcb": "COMMITTED_TCB",
    "firmware_versions": None,
    "launch_tcb": "LAUNCH_TCB",
    "mitigation_vectors": None,
    "signed": None,
    "signature_r": "SIGNATURE.R",
    "signature_s": "SIGNATURE.S",
}
SGX_BODY: Final[Mapping[str, str | None]] = {  # Intel SDM vol. 3D, REPORT
    "cpu_svn": "CPUSVN",
    "misc_select": "MISCSELECT",
    "isv_ext_prod_id": "ISVEXTPRODID",
    "attributes": "ATTRIBUTES.FLAGS",
    "xfrm": "ATTRIBUTES.XFRM",
    "mrenclave": "MRENCLAVE",
    "mrsigner": "MRSIGNER",
    "config_id": "CONFIGID",
    "isv_prod_id": "ISVPRODID",
    "isv_svn": "ISVSVN",
    "config_svn": "CONFIGSVN",
    "isv_family_id": "ISVFAMILYID",
    "report_data": "REPORTDATA",
}
TD_BODY: Final[Mapping[str, str | None]] = {  # Intel TDX DCAP quoting library, TD Quote Body
    "tee_tcb_svn": "TEE_TCB_SVN",
    "mr_seam": "MRSEAM",
    "mr_signer_seam": "MRSIGNERSEAM",
    "seam_attributes": "SEAMATTRIBUTES",
    "td_attributes": "TDATTRIBUTES",
    "xfam": "XFAM",
    "mrtd": "MRTD",
    "mr_config_id": "MRCONFIGID",
    "mr_owner": "MROWNER",
    "mr_owner_config": "MROWNERCONFIG",
    "rtmrs": None,
    "report_data": "REPORTDATA",
    "tee_tcb_svn_2": "TEE_TCB_SVN_2",
    "mr_service_td": "MRSERVICETD",
}
NITRO_DOCUMENT: Final[Mapping[str, str | None]] = {  # AWS NSM, attestation document
    "module_id": "module_id",
    "issued_at": "timestamp",
    "pcrs": None,
    "certificate": None,
    "ca_bundle": None,
    "public_key": "public_key",
    "user_data": "user_data",
    "nonce": "nonce",
    "signed": None,
    "signature": "signature",
}
TPM_QUOTE: Final[Mapping[str, str | None]] = {  # TCG TPM 2.0 part 2, TPMS_ATTEST
    "extra_data": "extraData",
    "qualified_signer": "qualifiedSigner",
    "clock": "clockInfo.clock",
    "reset_count": "clockInfo.resetCount",
    "restart_count": "clockInfo.restartCount",
    "safe": "clockInfo.safe",
    "firmware_version": "firmwareVersion",
    "selection": None,
    "pcr_digest": "attested.quote.pcrDigest",
    "signed": None,
}
_BIT_FIELDS: Final = frozenset(
    {
        "POLICY",
        "PLATFORM_INFO",
        "KEY_INFO",
        "MISCSELECT",
        "ATTRIBUTES.FLAGS",
        "ATTRIBUTES.XFRM",
        "SEAMATTRIBUTES",
        "TDATTRIBUTES",
        "XFAM",
        "SIGNATURE.R",
        "SIGNATURE.S",
        "firmwareVersion",
    }
)
_STEP: Final = "inspect"


def describe(kind: Kind, data: bytes) -> Members:
    """The members of evidence, or of endorsements in a bundle's form, of this kind (which is no bundle).

    ``measurement`` is what a policy takes for the whole, where it is made of several registers. Raises a
    :class:`VerificationError` for what cannot be read.
    """
    return _DESCRIBERS[kind](data)


def snp(data: bytes) -> Members:
    """An SEV-SNP attestation report."""
    report = snp_report.parse(data)
    members = named(report, SNP_REPORT)
    members["KEY_INFO.AUTHOR_KEY_EN"] = report.author_key_en
    members["KEY_INFO.MASK_CHIP_KEY"] = report.mask_chip_key
    members["KEY_INFO.SIGNING_KEY"] = report.signing_key.name
    members["POLICY.SMT"] = bool(report.policy >> 16 & 1)
    members["POLICY.MIGRATE_MA"] = bool(report.policy & snp_report.POLICY_MIGRATE_MA)
    members["POLICY.DEBUG"] = bool(report.policy & snp_report.POLICY_DEBUG)
    members["POLICY.SINGLE_SOCKET"] = bool(report.policy >> 20 & 1)
    current, committed = report.firmware_versions[:4], report.firmware_versions[4:]
    for name, version in (("CURRENT", current), ("COMMITTED", committed)):
        members[f"{name}_MAJOR.MINOR.BUILD"] = f"{version[2]}.{version[1]}.{version[0]}"
    if report.mitigation_vectors:
        members["LAUNCH_MIT_VECTOR"] = report.mitigation_vectors[:8].hex()
        members["CURRENT_MIT_VECTOR"] = report.mitigation_vectors[8:].hex()
    if report.product is not None:
        for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
            members[f"{name.upper()}"] = _tcb(snp_report.tcb(getattr(report, name), report.product))
    return members


def quote(data: bytes) -> Members:
    """An SGX or TDX quote with its Quoting Enclave's report and the CPU's certificates."""
    parsed = dcap_quote.parse(data)
    return {
        "version": parsed.version,
        "body": _sgx_body(parsed.body) if isinstance(parsed.body, SgxBody) else _td_body(parsed.body),
        "signature": parsed.signature.hex(),
        "attestation key": parsed.attestation_key.hex(),
        "QE report": _sgx_body(parsed.qe),
        "QE report signature": parsed.qe_signature.hex(),
        "QE authentication data": parsed.qe_auth_data.hex(),
        "PCK certificate chain": _chain(parsed.pck_chain.rstrip(b"\0")),
    }


def nitro(data: bytes) -> Members:
    """A Nitro attestation document."""
    document = nitro_document.parse(data)
    members = named(document, NITRO_DOCUMENT)
    members |= {f"PCR{index}": value.hex() for index, value in document.pcrs}
    members["certificate"] = _certificate(
        parse_certificate(document.certificate, step=_STEP, what="certificate")
    )
    members["cabundle"] = [
        _certificate(parse_certificate(der, step=_STEP, what="cabundle")) for der in document.ca_bundle
    ]
    return members


def hcl_report(data: bytes) -> Members:
    """A report of Azure's paravisor."""
    report = azure_hcl.parse(data)
    is_snp = report.kind is HardwareReport.SNP
    hardware: object = snp(report.hardware[: snp_report.REPORT_SIZE]) if is_snp else report.hardware.hex()
    return {
        "report type": report.kind.name,
        "hash of the runtime claims": report.binding.hex(),
        "HCLAkPub": f"RSA, {report.ak_modulus.bit_length()} bits, exponent {report.ak_exponent}",
        "vmUniqueId": report.vm_id,
        "secure-boot": report.secure_boot,
        "user-data": report.user_data.hex(),
        "hardware report": hardware,
    }


def tpm_quote(data: bytes) -> Members:
    """A TPMS_ATTEST."""
    parsed = tpm.parse_quote(data)
    members = named(parsed, TPM_QUOTE)
    members["attested.quote.pcrSelect"] = [f"{bank}:{index}" for bank, index in parsed.selection]
    return members


def named(value: object, names: Mapping[str, str | None]) -> Members:
    """The fields of a frozen value under the vendor's names, bytes as hex."""
    members: Members = {}
    for field in fields(value):  # type: ignore[arg-type]
        name = names[field.name]
        content: Any = getattr(value, field.name)
        if name is None or content is None:
            continue
        members[name] = f"{content:#x}" if name in _BIT_FIELDS else _plain(content)
    return members


def _plain(value: Any) -> object:
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, bool | int | str) else value.isoformat()


def _sgx_body(body: SgxBody) -> Members:
    return named(body, SGX_BODY) | {"ATTRIBUTES.DEBUG": bool(body.attributes & ATTRIBUTES_DEBUG)}


def _td_body(body: TdBody) -> Members:
    members = named(body, TD_BODY)
    members |= {f"RTMR{index}": value.hex() for index, value in enumerate(body.rtmrs)}
    members["TDATTRIBUTES.DEBUG"] = bool(body.td_attributes & TUD)
    members["TDATTRIBUTES.SEPT_VE_DISABLE"] = bool(body.td_attributes & SEPT_VE_DISABLE)
    members["TDATTRIBUTES.MIGRATABLE"] = bool(body.td_attributes & MIGRATABLE)
    members["measurement"] = tdx_measurement(body.mrtd, body.rtmrs).hex()
    return members


def _tcb(tcb: SnpTcb) -> Members:
    parts = {
        "FMC": tcb.fmc,
        "BOOT_LOADER": tcb.boot_loader,
        "TEE": tcb.tee,
        "SNP": tcb.snp,
        "MICROCODE": tcb.microcode,
    }
    return {name: value for name, value in parts.items() if value is not None}


def _azure(data: bytes) -> Members:
    parsed = evidence.parse_azure(data)
    members: Members = {
        "TPM quote": tpm_quote(parsed.message),
        "PCRs": _pcrs(parsed.pcrs),
        "HCL report": hcl_report(parsed.hcl_report),
    }
    launch = _launch(parsed)
    if launch is not None:
        pcrs = evidence.parse_pcrs(parsed.pcrs)
        members["measurement"] = azure_measurement(launch, pcrs.values()).hex()
    if parsed.td_quote is not None:
        members["TD quote"] = quote(parsed.td_quote)
    if parsed.event_log is not None:
        members["event log"] = _events(event_log.parse(parsed.event_log))
    return members


def _launch(parsed: AzureEvidence) -> bytes | None:
    """The paravisor's launch digest; None for TDX without a quote, or with one of an enclave."""
    if parsed.td_quote is not None:
        body = dcap_quote.parse(parsed.td_quote).body
        return body.mrtd if isinstance(body, TdBody) else None
    hcl = azure_hcl.parse(parsed.hcl_report)
    if hcl.kind is not HardwareReport.SNP:
        return None
    return snp_report.parse(hcl.hardware[: snp_report.REPORT_SIZE]).measurement


def _tpm(data: bytes) -> Members:
    parsed = evidence.parse_tpm(data)
    pcrs = evidence.parse_pcrs(parsed.pcrs)
    members: Members = {
        "TPM quote": tpm_quote(parsed.message),
        "PCRs": _pcrs(parsed.pcrs),
        "measurement": pcr_measurement(pcrs.values()).hex(),
    }
    if parsed.event_log is not None:
        members["event log"] = _events(event_log.parse(parsed.event_log))
    return members


def _pcrs(pcrs: dict[str, dict[str, str]]) -> Members:
    parsed: dict[tuple[str, int], Pcr] = evidence.parse_pcrs(pcrs)
    return {f"PCR{index} ({bank})": pcr.value.hex() for (bank, index), pcr in sorted(parsed.items())}


def _simulated(data: bytes) -> Members:
    claims = simulated.verify(data)
    return {
        "measurement": claims.measurement.hex(),
        "signer": None if claims.signer is None else claims.signer.hex(),
        "debug": claims.debug,
        "report_data": claims.report_data.hex(),
        "product_id": claims.product_id,
        "security_version": claims.security_version,
    }


def _collateral(data: bytes) -> Members:
    parsed = dcap_collateral.parse(data)
    info, identity = parsed.tcb_info, parsed.qe_identity
    return {
        "TCB Info": {
            "id": info.id,
            "version": info.version,
            "issueDate": info.issue_date.isoformat(),
            "nextUpdate": info.next_update.isoformat(),
            "fmspc": info.fmspc,
            "pceId": info.pce_id,
            "tcbEvaluationDataNumber": info.evaluation_data_number,
            "tcbLevels": len(info.levels),
        },
        "Enclave Identity": {
            "id": identity.id,
            "version": identity.version,
            "issueDate": identity.issue_date.isoformat(),
            "nextUpdate": identity.next_update.isoformat(),
            "tcbEvaluationDataNumber": identity.evaluation_data_number,
            "mrsigner": identity.mrsigner,
            "isvprodid": identity.isv_prod_id,
            "tcbLevels": len(identity.levels),
        },
        "root CA CRL": _crl(parsed.root_crl),
        "PCK CRL": _crl(parsed.pck_crl),
    }


def _certificates(data: bytes) -> Members:
    return {"certificates": [_certificate(certificate) for certificate in parse_chain(data, step=_STEP)]}


def _chain(pem: bytes) -> list[Members]:
    described = []
    for certificate in parse_chain(pem, step=_STEP):
        members = _certificate(certificate)
        for extension in certificate.extensions:
            if extension.oid.dotted_string == pck_extension.OID and isinstance(
                extension.value, x509.UnrecognizedExtension
            ):
                members |= _pck(extension.value.value)
        described.append(members)
    return described


def _pck(der: bytes) -> Members:
    parsed = pck_extension.parse(der)
    return {
        "FMSPC": parsed.fmspc.hex(),
        "PCEID": parsed.pce_id.hex(),
        "SGX TCB components": list(parsed.components),
        "PCESVN": parsed.pce_svn,
        "CPUSVN": parsed.cpu_svn.hex(),
    }


def _certificate(certificate: x509.Certificate) -> Members:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serialNumber": f"{certificate.serial_number:#x}",
        "notBefore": certificate.not_valid_before_utc.isoformat(),
        "notAfter": certificate.not_valid_after_utc.isoformat(),
    }


def _crl(der: bytes) -> Members:
    parsed = parse_crl(der, step=_STEP)
    next_update = parsed.next_update_utc
    return {
        "issuer": parsed.issuer.rfc4514_string(),
        "thisUpdate": parsed.last_update_utc.isoformat(),
        "nextUpdate": None if next_update is None else next_update.isoformat(),
        "revokedCertificates": [f"{entry.serial_number:#x}" for entry in parsed],
    }


def _events(log: EventLog) -> Members:
    return {
        "events": [
            {
                "register": event.register,
                "event type": f"{event.kind:#x}",
                "digests": {bank: digest.hex() for bank, digest in event.digests},
                "event": event.data.hex(),
            }
            for event in log.events
        ]
    }


_DESCRIBERS: Final[Mapping[Kind, Callable[[bytes], Members]]] = {
    Kind.SGX: quote,
    Kind.TDX: quote,
    Kind.SEV_SNP: snp,
    Kind.AZURE_SNP: _azure,
    Kind.AZURE_TDX: _azure,
    Kind.NITRO: nitro,
    Kind.TPM: _tpm,
    Kind.SIMULATED: _simulated,
    Kind.HCL_REPORT: hcl_report,
    Kind.TPM_QUOTE: tpm_quote,
    Kind.COLLATERAL: _collateral,
    Kind.CERTIFICATES: _certificates,
    Kind.CRL: _crl,
    Kind.EVENT_LOG: lambda data: _events(event_log.parse(data)),
    Kind.JSON_EVENT_LOG: lambda data: _events(event_log.parse_json(data)),
}
