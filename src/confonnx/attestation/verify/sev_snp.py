"""AMD SEV-SNP: from a report and AMD's certificates to claims.

:data:`CHECKS` lists what is checked, in order (AMD 56860 "Attestation", AMD 57230 "VCEK Certificate and KDS
Interface Specification").
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from confonnx.attestation.claims import Claims, SevSnpClaims, SnpTcb, TcbStatus, Tee
from confonnx.attestation.formats import snp_report
from confonnx.attestation.formats.snp_report import SigningKey, SnpReport
from confonnx.attestation.verify.steps import UNTRACED, Checks, CheckTable
from confonnx.attestation.verify.x509 import (
    Endorsements,
    chain_checks,
    check_revocation,
    revocation_checks,
    verify_chain,
)
from confonnx.errors import EndorsementError, EvidenceError

CHECKS: Final[CheckTable] = {
    "sev-snp.endorsements": (
        "VEK, ASK (or ASVK) and ARK are at hand, and can be read",
        "get them from AMD (--endorsements fetch), or give them as files",
    ),
    "sev-snp.format": (
        "the report is one of a known version, with known bits only",
        "see that the file is a whole report; upgrade if its version is newer",
    ),
    **chain_checks("sev-snp"),  # ARK → ASK/ASVK → VEK; the ARK's public key is pinned
    **revocation_checks("sev-snp"),  # the ARK's CRL, of the ASK/ASVK
    "sev-snp.signing-key": (
        "the VEK is of the kind that the report names, VCEK or VLEK",
        "get the certificate that belongs to the report: a VLEK comes from the cloud, with the evidence",
    ),
    "sev-snp.product": (
        "report, VEK and ARK are of one product line",
        "get the certificates of the report's product",
    ),
    "sev-snp.signature": ("the VEK signed the report", "do not trust it, or get the VEK of this chip"),
    "sev-snp.tcb": (
        "the VEK was derived for exactly the report's REPORTED_TCB",
        "get the VEK of this TCB (--endorsements fetch): the firmware was updated since",
    ),
    "sev-snp.chip": ("the VCEK belongs to the report's CHIP_ID", "get the VEK of this chip"),
    # The reported TCB is not above the current one, and guest migration agents, which this verifier cannot
    # judge, are absent.
    "sev-snp.vendor": (
        "what the report says of itself is possible, and no migration agent holds the guest's key",
        "launch the guest without a migration agent",
    ),
}

# SHA-256 of the SubjectPublicKeyInfo of ARK-Milan, ARK-Genoa and ARK-Turin, as served by
# https://kdsintf.amd.com/vcek/v1/{product}/cert_chain.
AMD_ROOTS: Final = frozenset(
    bytes.fromhex(digest)
    for digest in (
        "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
        "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
        "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
    )
)

# AMD 57230, VCEK and VLEK certificate extensions.
_PRODUCT_NAME: Final = "1.3.6.1.4.1.3704.1.2"
_BOOT_LOADER_SPL: Final = "1.3.6.1.4.1.3704.1.3.1"
_TEE_SPL: Final = "1.3.6.1.4.1.3704.1.3.2"
_SNP_SPL: Final = "1.3.6.1.4.1.3704.1.3.3"
_UCODE_SPL: Final = "1.3.6.1.4.1.3704.1.3.8"
_FMC_SPL: Final = "1.3.6.1.4.1.3704.1.3.9"
_HWID: Final = "1.3.6.1.4.1.3704.1.4"
_CSP_ID: Final = "1.3.6.1.4.1.3704.1.5"

_VEK_NAMES: Final = frozenset({"SEV-VCEK", "SEV-VLEK"})  # AMD 57230, subject common names

_DER_INTEGER: Final = 0x02
_DER_IA5_STRING: Final = 0x16


@dataclass(frozen=True, slots=True)
class AmdEndorsements:
    """The certificates that vouch for a report: ``vek`` is a VCEK or VLEK, ``ask`` its issuer (ASK or
    ASVK)."""

    vek: x509.Certificate
    ask: x509.Certificate
    ark: x509.Certificate
    crls: tuple[x509.CertificateRevocationList, ...]


def select_endorsements(endorsements: Endorsements) -> AmdEndorsements:
    """Find VEK, ASK and ARK by their names. Raises :class:`EndorsementError`
    (``sev-snp.endorsements``)."""
    named = [(_common_name(certificate), certificate) for certificate in endorsements.certificates]
    return AmdEndorsements(
        vek=_only([c for name, c in named if name in _VEK_NAMES], "VEK (VCEK or VLEK)"),
        ask=_only(
            [c for name, c in named if name.startswith("SEV-") and name not in _VEK_NAMES], "ASK or ASVK"
        ),
        ark=_only([c for name, c in named if name.startswith("ARK-")], "ARK"),
        crls=endorsements.crls,
    )


def verify(
    evidence: bytes,
    endorsements: Endorsements,
    *,
    now: datetime,
    roots: Collection[bytes] = AMD_ROOTS,
    dangerous_skip_revocation: bool = False,
    checks: Checks = UNTRACED,
) -> Claims:
    """Verify a report against ``endorsements`` at ``now`` and return what it says.

    ``roots`` are SHA-256 digests of ARK public keys. ``dangerous_skip_revocation`` leaves out revocation,
    for the inspection of old evidence whose CRL is gone. A report with POLICY.DEBUG is genuine: the claims
    say ``debug``, and the policy judges. Raises :class:`EvidenceFormatError`, :class:`EvidenceError` or
    :class:`EndorsementError`.
    """
    with checks.run("sev-snp.endorsements"):
        amd = select_endorsements(endorsements)
    with checks.run("sev-snp.format"):
        report = snp_report.parse(evidence)
    valid_until = verify_chain(
        (amd.vek, amd.ask, amd.ark), roots=roots, now=now, step="sev-snp", checks=checks
    )
    if dangerous_skip_revocation:
        checks.skip("sev-snp.crl", "left out on the caller's demand")
        checks.skip("sev-snp.revoked", "left out on the caller's demand")
    else:
        # VEKs all have serial number 0: AMD revokes the intermediate, never a single chip.
        next_update = check_revocation(
            amd.ask, issuer=amd.ark, crls=amd.crls, now=now, step="sev-snp", checks=checks
        )
        valid_until = min(valid_until, next_update)
    details = _check_report(report, amd, checks)
    return Claims(
        tee=Tee.SEV_SNP,
        measurement=report.measurement,
        signer=report.id_key_digest if any(report.id_key_digest) else None,
        debug=bool(report.policy & snp_report.POLICY_DEBUG),
        report_data=report.report_data,
        security_version=report.guest_svn,
        product_id=None,
        tcb_status=TcbStatus.NOT_APPLICABLE,
        advisories=(),
        valid_until=valid_until,
        details=details,
    )


def _check_report(report: SnpReport, amd: AmdEndorsements, checks: Checks) -> SevSnpClaims:
    """That the VEK, whose chain holds, vouches for ``report``; returns what the report says."""
    with checks.run("sev-snp.signing-key"):
        _check_signing_key(report, amd.vek)
    with checks.run("sev-snp.product"):
        product = _check_product(report, amd)
    with checks.run("sev-snp.signature"):
        _check_signature(report, amd.vek)
    with checks.run("sev-snp.tcb"):
        reported_tcb = _check_tcb(report, amd.vek, product)
    with checks.run("sev-snp.chip"):
        _check_chip(report, amd.vek, product)
        details = _details(report, amd.vek, product, reported_tcb)
    with checks.run("sev-snp.vendor"):
        _check_vendor_rules(details)
    return details


def _check_signing_key(report: SnpReport, vek: x509.Certificate) -> None:
    """AMD names the certificates SEV-VCEK and SEV-VLEK."""
    expected = f"SEV-{report.signing_key.name}"
    if _common_name(vek) != expected:
        raise EvidenceError(
            "sev-snp.signing-key",
            f"the report says that its {report.signing_key.name} signed it, but the certificate is "
            f"{_common_name(vek)!r}",
        )


def _check_product(report: SnpReport, amd: AmdEndorsements) -> str:
    """VCEK product names carry a stepping ("Milan-B0"), VLEK ones do not."""
    check = "sev-snp.product"
    named = _ia5_string(amd.vek, _PRODUCT_NAME, check).split("-")[0]
    infix = "VLEK-" if report.signing_key is SigningKey.VLEK else ""
    issuers = (_common_name(amd.ask), _common_name(amd.ark))
    if issuers != (f"SEV-{infix}{named}", f"ARK-{named}"):
        raise EndorsementError(
            check, f"the VEK is for {named!r}, but its issuers are {issuers[0]} and {issuers[1]}"
        )
    if report.product is not None and report.product != named:
        raise EvidenceError(check, f"the report is of {report.product}, but the VEK is for {named!r}")
    if named not in ("Milan", "Genoa", "Turin"):
        raise EndorsementError(check, f"the VEK is for {named!r}, expected Milan, Genoa or Turin")
    if report.product is None and named == "Turin":
        # Version 2 has no CPUID, and Turin lays TCB_VERSION out otherwise: nothing in the report says which
        # one holds.
        raise EvidenceError(check, "a version 2 report cannot be of Turin; update the firmware")
    return named


def _check_signature(report: SnpReport, vek: x509.Certificate) -> None:
    """ECDSA P-384 with SHA-384 over the report up to SIGNATURE."""
    key = vek.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise EndorsementError("sev-snp.signature", "the VEK's public key is not on P-384")
    try:
        signature = encode_dss_signature(report.signature_r, report.signature_s)
        key.verify(signature, report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise EvidenceError(
            "sev-snp.signature", "the report is not signed by the VEK; it was changed, or is of another chip"
        ) from error


def _check_tcb(report: SnpReport, vek: x509.Certificate, product: str) -> SnpTcb:
    """Each security patch level of the VEK equals REPORTED_TCB, for which it was derived."""
    reported = snp_report.tcb(report.reported_tcb, product)
    certified = SnpTcb(
        boot_loader=_integer(vek, _BOOT_LOADER_SPL),
        tee=_integer(vek, _TEE_SPL),
        snp=_integer(vek, _SNP_SPL),
        microcode=_integer(vek, _UCODE_SPL),
        fmc=_integer(vek, _FMC_SPL) if product == "Turin" else None,
    )
    if certified != reported:
        raise EvidenceError("sev-snp.tcb", f"the VEK is for TCB {certified}, but REPORTED_TCB is {reported}")
    return reported


def _check_chip(report: SnpReport, vek: x509.Certificate, product: str) -> None:
    """Turin has 8-byte identifiers. A VLEK is of a cloud, not of a chip."""
    check = "sev-snp.chip"
    if report.signing_key is SigningKey.VLEK:
        if _extension(vek, _HWID) is not None:
            raise EndorsementError(check, "a VLEK certificate must not name a chip")
        return
    hwid = _extension(vek, _HWID)
    size = 8 if product == "Turin" else 64
    if hwid is None or len(hwid) != size:
        raise EndorsementError(
            check, f"the VCEK's HWID extension is {hwid and hwid.hex()!r}, expected {size} bytes"
        )
    if report.mask_chip_key:
        # MASK_CHIP_KEY also replaces the signature by zeros (AMD 56860, SNP_CONFIG), so that check refuses
        # it before.
        raise EvidenceError(check, "the report masks its chip, so no VCEK can be matched to it")
    if report.chip_id != hwid.ljust(64, b"\0"):
        raise EvidenceError(
            check, f"the report is of chip {report.chip_id.hex()}, but the VCEK is of {hwid.hex()}"
        )


def _check_vendor_rules(claims: SevSnpClaims) -> None:
    check = "sev-snp.vendor"
    # AMD 56860, SNP_CONFIG and SNP_COMMIT: the firmware accepts no higher value in either place.
    if _exceeds(claims.reported_tcb, claims.committed_tcb):
        raise EvidenceError(
            check, f"REPORTED_TCB {claims.reported_tcb} is above COMMITTED_TCB {claims.committed_tcb}"
        )
    if _exceeds(claims.committed_tcb, claims.current_tcb):
        raise EvidenceError(
            check, f"COMMITTED_TCB {claims.committed_tcb} is above CURRENT_TCB {claims.current_tcb}"
        )
    if claims.policy & snp_report.POLICY_MIGRATE_MA:
        raise EvidenceError(
            check,
            "POLICY.MIGRATE_MA is set: a migration agent, which nobody appraised, holds the guest's key",
        )


def _details(report: SnpReport, vek: x509.Certificate, product: str, reported_tcb: SnpTcb) -> SevSnpClaims:
    is_vlek = report.signing_key is SigningKey.VLEK
    return SevSnpClaims(
        version=report.version,
        product=product,
        measurement=report.measurement,
        host_data=report.host_data,
        id_key_digest=report.id_key_digest,
        author_key_digest=report.author_key_digest,
        family_id=report.family_id,
        image_id=report.image_id,
        guest_svn=report.guest_svn,
        vmpl=report.vmpl,
        policy=report.policy,
        platform_info=report.platform_info,
        current_tcb=snp_report.tcb(report.current_tcb, product),
        reported_tcb=reported_tcb,
        committed_tcb=snp_report.tcb(report.committed_tcb, product),
        launch_tcb=snp_report.tcb(report.launch_tcb, product),
        report_id=report.report_id,
        chip_id=report.chip_id,
        signing_key=report.signing_key.name,
        csp_id=_ia5_string(vek, _CSP_ID, "sev-snp.chip") if is_vlek else None,
    )


def _exceeds(a: SnpTcb, b: SnpTcb) -> bool:
    return (
        a.boot_loader > b.boot_loader
        or a.tee > b.tee
        or a.snp > b.snp
        or a.microcode > b.microcode
        or (a.fmc or 0) > (b.fmc or 0)
    )


def _only(found: list[x509.Certificate], what: str) -> x509.Certificate:
    if len(found) != 1:
        raise EndorsementError(
            "sev-snp.endorsements", f"{len(found)} certificates are the {what}, expected exactly one"
        )
    return found[0]


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _extension(certificate: x509.Certificate, oid: str) -> bytes | None:
    for extension in certificate.extensions:
        if extension.oid.dotted_string == oid and isinstance(extension.value, x509.UnrecognizedExtension):
            return extension.value.value
    return None


def _integer(certificate: x509.Certificate, oid: str) -> int:
    """A security patch level: a DER INTEGER of 0 to 255 (so 0xDB is 02 02 00 DB)."""
    value = _extension(certificate, oid)
    if value is not None and len(value) == 3 and value[:2] == bytes((_DER_INTEGER, 1)) and value[2] < 0x80:
        return value[2]
    if (
        value is not None
        and len(value) == 4
        and value[:3] == bytes((_DER_INTEGER, 2, 0))
        and value[3] >= 0x80
    ):
        return value[3]
    raise EndorsementError(
        "sev-snp.tcb",
        f"the VEK's extension {oid} is {value and value.hex()!r}, expected a number of 0 to 255",
    )


def _ia5_string(certificate: x509.Certificate, oid: str, check: str) -> str:
    value = _extension(certificate, oid)
    if (
        value is None
        or len(value) < 2
        or value[0] != _DER_IA5_STRING
        or value[1] != len(value) - 2
        or not value.isascii()
    ):
        raise EndorsementError(
            check, f"the VEK's extension {oid} is {value and value.hex()!r}, expected a text"
        )
    return value[2:].decode("ascii")
