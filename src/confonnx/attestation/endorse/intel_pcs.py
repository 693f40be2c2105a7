"""Intel's Provisioning Certification Service (PCS API v4), or a PCCS: the collateral for a quote. No I/O.

::

    GET /{sgx|tdx}/certification/v4/tcb?fmspc=…&update=…            {"tcbInfo": …, "signature": "…"}
    GET /{sgx|tdx}/certification/v4/qe/identity?update=…            {"enclaveIdentity": …, "signature": "…"}
    GET /sgx/certification/v4/pckcrl?ca={platform|processor}&encoding=der
    GET https://certificates.trustedservices.intel.com/IntelSGXRootCA.der          the root's CRL
    GET /sgx/certification/v4/rootcacrl                                            the same from a PCCS

The signed documents are objects inside their answers: their exact bytes are cut out and never rewritten,
since the signature is over them. Certificate chains come in header fields, as percent-encoded PEM.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Final, TypeVar
from urllib.parse import unquote

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.claims import DCAP_COLLATERAL
from confonnx.attestation.endorse.exchange import MALFORMED, UNUSABLE, Answer, Gathering, Request
from confonnx.attestation.endorse.options import INTEL_PCS, TcbUpdate
from confonnx.attestation.formats import dcap_collateral, dcap_quote, pck_extension
from confonnx.attestation.formats.dcap_collateral import QeIdentity, TcbInfo
from confonnx.attestation.formats.dcap_quote import Quote, TdBody
from confonnx.attestation.verify.x509 import MAX_CRL_BYTES, parse_chain, parse_crl
from confonnx.errors import EndorsementError

INTEL_ROOT_CRL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

_STEP: Final = "endorse"
_MAX_DOCUMENT: Final = dcap_collateral.MAX_COLLATERAL_BYTES // 2
_TCB_CHAIN: Final = "tcb-info-issuer-chain"
_QE_CHAIN: Final = "sgx-enclave-identity-issuer-chain"
_CRL_CHAIN: Final = "sgx-pck-crl-issuer-chain"
_DER_SEQUENCE: Final = b"\x30"
_PCK_CAS: Final = {"Intel SGX PCK Platform CA": "platform", "Intel SGX PCK Processor CA": "processor"}


T = TypeVar("T", bound=msgspec.Struct)


class _TcbInfoAnswer(msgspec.Struct, frozen=True):
    document: msgspec.Raw = msgspec.field(name="tcbInfo")
    signature: str


class _QeIdentityAnswer(msgspec.Struct, frozen=True):
    document: msgspec.Raw = msgspec.field(name="enclaveIdentity")
    signature: str


def gather(evidence: bytes, *, base_url: str, update: TcbUpdate) -> Gathering:
    """The collateral for a quote, in the one JSON form of ``formats.dcap_collateral``.

    Raises :class:`EvidenceFormatError`, and :class:`EndorsementError` (``endorse.…``, ``dcap.collateral``).
    """
    quote = dcap_quote.parse(evidence)
    fmspc, pck_ca = _platform(quote)
    tee = "tdx" if isinstance(quote.body, TdBody) else "sgx"
    tcb_info = yield _tcb_info_request(f"{base_url}/{tee}/certification/v4", fmspc, update)
    qe_identity = yield _qe_identity_request(f"{base_url}/{tee}/certification/v4", update)
    pck_crl = yield _pck_crl_request(f"{base_url}/sgx/certification/v4", pck_ca)
    root_crl = yield _root_crl_request(base_url)
    tcb, identity = _tcb_info(tcb_info), _qe_identity(qe_identity)
    collateral = {
        "pck_crl_issuer_chain": _pem(pck_crl, _CRL_CHAIN),
        "root_ca_crl": _der_crl(root_crl).hex(),
        "pck_crl": _der_crl(pck_crl).hex(),
        "tcb_info_issuer_chain": _pem(tcb_info, _TCB_CHAIN),
        "tcb_info": _text(tcb.document),
        "tcb_info_signature": tcb.signature,
        "qe_identity_issuer_chain": _pem(qe_identity, _QE_CHAIN),
        "qe_identity": _text(identity.document),
        "qe_identity_signature": identity.signature,
    }
    return ((DCAP_COLLATERAL, json.dumps(collateral).encode("ascii")),)


def _platform(quote: Quote) -> tuple[str, str]:
    """FMSPC, in hex, and which CA issued the PCK certificate: both from the quote's own certificate."""
    chain = parse_chain(quote.pck_chain.rstrip(b"\0"), step=_STEP)
    values = [
        extension.value.value
        for extension in chain[0].extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
        and extension.oid.dotted_string == pck_extension.OID
    ]
    issuers = chain[0].issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    pck_ca = _PCK_CAS.get(str(issuers[0].value)) if len(issuers) == 1 else None
    if not values or pck_ca is None:
        raise EndorsementError(
            UNUSABLE,
            f"the quote's first certificate, {chain[0].subject.rfc4514_string()!r} issued by "
            f"{chain[0].issuer.rfc4514_string()!r}, is no PCK certificate of Intel",
        )
    return pck_extension.parse(values[0]).fmspc.hex(), pck_ca


def _tcb_info_request(service: str, fmspc: str, update: TcbUpdate) -> Request:
    return Request(
        f"{service}/tcb?fmspc={fmspc}&update={update}",
        f"Intel's TCB Info for FMSPC {fmspc}",
        _MAX_DOCUMENT,
        lambda answer: _decode(TcbInfo, bytes(_tcb_info(answer).document)).next_update,
        renewed=True,
        fields=(_TCB_CHAIN,),
    )


def _qe_identity_request(service: str, update: TcbUpdate) -> Request:
    return Request(
        f"{service}/qe/identity?update={update}",
        "Intel's QE Identity",
        _MAX_DOCUMENT,
        lambda answer: _decode(QeIdentity, bytes(_qe_identity(answer).document)).next_update,
        renewed=True,
        fields=(_QE_CHAIN,),
    )


def _pck_crl_request(service: str, pck_ca: str) -> Request:
    return Request(
        f"{service}/pckcrl?ca={pck_ca}&encoding=der",
        f"Intel's CRL of the PCK {pck_ca} CA",
        MAX_CRL_BYTES,
        _crl_expiry,
        renewed=True,
        fields=(_CRL_CHAIN,),
    )


def _root_crl_request(base_url: str) -> Request:
    url = INTEL_ROOT_CRL if base_url == INTEL_PCS else f"{base_url}/sgx/certification/v4/rootcacrl"
    return Request(url, "the CRL of Intel's root", MAX_CRL_BYTES, _crl_expiry, renewed=True)


def _tcb_info(answer: Answer) -> _TcbInfoAnswer:
    return _decode(_TcbInfoAnswer, answer.body)


def _qe_identity(answer: Answer) -> _QeIdentityAnswer:
    return _decode(_QeIdentityAnswer, answer.body)


def _decode(kind: type[T], data: bytes) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:  # ValueError: msgspec's errors, and bad UTF-8
        raise EndorsementError(MALFORMED, f"Intel's answer cannot be read: {error}") from error


def _text(document: msgspec.Raw) -> str:
    try:
        return bytes(document).decode("utf-8")
    except UnicodeDecodeError as error:  # in a member that is not looked at, so that `_decode` let it pass
        raise EndorsementError(MALFORMED, f"a document of Intel's is not UTF-8: {error}") from error


def _pem(answer: Answer, field: str) -> str:
    """The chain in a header field, as far as it is one."""
    chain = parse_chain(unquote(answer.field(field)).encode(), step=_STEP)
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain).decode("ascii")


def _der_crl(answer: Answer) -> bytes:
    """A CRL as DER. A PCCS sends some CRLs as hexadecimal text, and PEM if it ignores ``encoding``."""
    body = answer.body
    try:
        if body.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_crl(body).public_bytes(Encoding.DER)
        return body if body.startswith(_DER_SEQUENCE) else bytes.fromhex(body.decode("ascii"))
    except ValueError as error:
        raise EndorsementError(
            MALFORMED, f"a CRL of Intel's is neither DER, nor hexadecimal, nor PEM: {error}"
        ) from error


def _crl_expiry(answer: Answer) -> datetime:
    next_update = parse_crl(_der_crl(answer), step=_STEP).next_update_utc
    if next_update is None:
        raise EndorsementError(MALFORMED, "a CRL of Intel's does not say when the next one comes")
    return next_update
