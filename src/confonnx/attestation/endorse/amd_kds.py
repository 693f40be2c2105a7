"""AMD's Key Distribution Service (AMD 57230): what to ask for an SEV-SNP report, what to make of it.

::

    GET /vcek/v1/{Milan|Genoa}/{CHIP_ID}?blSPL=…&teeSPL=…&snpSPL=…&ucodeSPL=…         VCEK, DER
    GET /vcek/v1/Turin/{first 8 bytes of CHIP_ID}?fmcSPL=…&blSPL=…&teeSPL=…&snpSPL=…&ucodeSPL=…
    GET /{vcek|vlek}/v1/{product}/cert_chain                                           ASK or ASVK, ARK, PEM
    GET /{vcek|vlek}/v1/{product}/crl                                                  the ARK's CRL, DER

A VLEK is given to a cloud and not to its customers: KDS does not serve it, so it must come with the evidence.
No I/O here.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.claims import CERTIFICATE_CHAIN, CERTIFICATE_LIST
from confonnx.attestation.endorse.exchange import (
    MALFORMED,
    MISSING,
    UNUSABLE,
    Answer,
    Endorsements,
    Gathering,
    Request,
)
from confonnx.attestation.formats import snp_report
from confonnx.attestation.formats.snp_report import SigningKey, SnpReport
from confonnx.attestation.verify.x509 import (
    MAX_CERTIFICATE_BYTES,
    MAX_CRL_BYTES,
    parse_certificate,
    parse_chain,
    parse_crl,
)
from confonnx.errors import EndorsementError

_STEP: Final = "endorse"
_PRODUCTS: Final = ("Milan", "Genoa", "Turin")
# A version 2 report has no CPUID. Turin's cannot be judged (see verify.sev_snp, step 8), so two are left.
_VERSION_2_PRODUCTS: Final = ("Milan", "Genoa")
_TURIN_HWID_SIZE: Final = 8
_VLEK_ISSUER: Final = "SEV-VLEK-"  # AMD 57230, common name of the ASVK, before the product


def gather(evidence: bytes, bundled: Endorsements, *, base_url: str) -> Gathering:
    """The VEK, its issuers and the CRL for a report.

    Of ``bundled`` only a VLEK certificate is used. Raises :class:`EvidenceFormatError`, and
    :class:`EndorsementError` (``endorse.…``).
    """
    report = snp_report.parse(evidence)
    if report.signing_key is SigningKey.VLEK:
        vek, product = _bundled_vlek(bundled)
        service = f"{base_url}/vlek/v1/{product}"
    else:
        vek, product = yield from _vcek(report, base_url)
        service = f"{base_url}/vcek/v1/{product}"
    chain = yield Request(
        f"{service}/cert_chain",
        f"AMD's certificate chain for {product}",
        MAX_CERTIFICATE_BYTES,
        _chain_expiry,
        renewed=False,
    )
    crl = yield Request(
        f"{service}/crl", f"AMD's CRL for {product}", MAX_CRL_BYTES, _crl_expiry, renewed=True
    )
    return (
        (CERTIFICATE_CHAIN, vek.public_bytes(Encoding.PEM) + chain.body),
        (CERTIFICATE_LIST, crl.body),
    )


def _vcek(report: SnpReport, base_url: str) -> Generator[Request, Answer, tuple[x509.Certificate, str]]:
    if report.mask_chip_key or not any(report.chip_id):
        raise EndorsementError(
            UNUSABLE,
            "the report hides its chip (CHIP_ID is zero or masked), so AMD cannot be asked for its VCEK; "
            "the host must switch MASK_CHIP_ID off, or send the certificates along",
        )
    if report.product is not None:
        return (yield from _vcek_of(report, report.product, base_url))
    for product in _VERSION_2_PRODUCTS[:-1]:
        try:
            return (yield from _vcek_of(report, product, base_url))
        except EndorsementError as error:
            if error.check != MISSING:
                raise
    return (yield from _vcek_of(report, _VERSION_2_PRODUCTS[-1], base_url))


def _vcek_of(
    report: SnpReport, product: str, base_url: str
) -> Generator[Request, Answer, tuple[x509.Certificate, str]]:
    answer = yield Request(
        vcek_url(report, product, base_url),
        f"the VCEK of chip {report.chip_id[:8].hex()}… ({product}) at {report.reported_tcb.hex()}",
        MAX_CERTIFICATE_BYTES,
        _vcek_expiry,
        renewed=False,
    )
    return _vcek_certificate(answer), product


def vcek_url(report: SnpReport, product: str, base_url: str) -> str:
    """Where AMD has the VCEK that signed ``report``: by chip, and by the TCB that the key was derived for."""
    tcb = snp_report.tcb(report.reported_tcb, product)
    chip_id = report.chip_id[:_TURIN_HWID_SIZE] if product == "Turin" else report.chip_id
    levels = [
        *(() if tcb.fmc is None else (("fmcSPL", tcb.fmc),)),
        ("blSPL", tcb.boot_loader),
        ("teeSPL", tcb.tee),
        ("snpSPL", tcb.snp),
        ("ucodeSPL", tcb.microcode),
    ]
    query = "&".join(f"{name}={level:02}" for name, level in levels)
    return f"{base_url}/vcek/v1/{product}/{chip_id.hex()}?{query}"


def _bundled_vlek(bundled: Endorsements) -> tuple[x509.Certificate, str]:
    for media_type, data in bundled:
        if media_type != CERTIFICATE_CHAIN:
            continue
        for certificate in parse_chain(data, step=_STEP):
            product = _common_name(certificate.issuer).removeprefix(_VLEK_ISSUER)
            if _common_name(certificate.subject) == "SEV-VLEK" and product in _PRODUCTS:
                return certificate, product
    raise EndorsementError(
        UNUSABLE,
        "a VLEK signed the report, and its certificate did not come along; AMD gives it to the cloud "
        "alone, so the server must send it",
    )


def _common_name(name: x509.Name) -> str:
    names = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _vcek_certificate(answer: Answer) -> x509.Certificate:
    return parse_certificate(answer.body, step=_STEP, what="AMD's answer")


def _vcek_expiry(answer: Answer) -> datetime:
    return _vcek_certificate(answer).not_valid_after_utc


def _chain_expiry(answer: Answer) -> datetime:
    chain = parse_chain(answer.body, step=_STEP)
    if len(chain) != 2:
        raise EndorsementError(
            MALFORMED, f"AMD's certificate chain has {len(chain)} certificates, expected two: ASK and ARK"
        )
    return min(certificate.not_valid_after_utc for certificate in chain)


def _crl_expiry(answer: Answer) -> datetime:
    next_update = parse_crl(answer.body, step=_STEP).next_update_utc
    if next_update is None:
        raise EndorsementError(MALFORMED, "AMD's CRL does not say when the next one comes")
    return next_update
