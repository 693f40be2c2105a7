"""Evidence, endorsements and event logs: any bytes are refused with a documented error, or say what the good
ones say.

``python -m tests.fuzz.fuzz_evidence --target sgx --seconds 600``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import timedelta

from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.claims import CERTIFICATE_CHAIN, CERTIFICATE_LIST, Claims
from confonnx.attestation.formats import dcap_collateral, event_log
from confonnx.attestation.formats.evidence import AzureEvidence, TpmEvidence, encode
from confonnx.attestation.verify import azure_cvm, nitro, sev_snp, sgx, tdx, tpm
from confonnx.attestation.verify.dcap import DcapEndorsements
from confonnx.attestation.verify.x509 import Endorsements, parse_certificate, parse_crl, parse_endorsements
from confonnx.errors import EvidenceFormatError, VerificationError
from tests.fuzz.mutator import Target, main
from tests.support.authorities import amd, aws, boot, intel, tcg
from tests.support.authorities.intel import SGX, SGX_COLLATERAL, TDX4, TDX5, TDX_COLLATERAL
from tests.support.authorities.pki import NOW, crl, pem

_SGX_COLLATERAL = DcapEndorsements(dcap_collateral.parse(SGX_COLLATERAL.encode()))
_TDX_COLLATERAL = DcapEndorsements(dcap_collateral.parse(TDX_COLLATERAL.encode()))
_AMD = amd.endorsements()
_TPM = tcg.endorsements()
_QUOTE = tcg.Quote()
_CLAIMS = tcg.runtime_claims()
_HCL = tcg.hcl_report(amd.report({0x50: tcg.binding(_CLAIMS)}), _CLAIMS)
_SGX_QUOTE = SGX.encode()
_REPORT = amd.report()


def _sgx(data: bytes) -> Claims:
    return sgx.verify(data, _SGX_COLLATERAL, now=NOW, roots=intel.roots())


def _tdx(data: bytes) -> Claims:
    return tdx.verify(data, _TDX_COLLATERAL, now=NOW, roots=intel.roots())


def _collateral(data: bytes) -> Claims:
    endorsements = DcapEndorsements(dcap_collateral.parse(data))
    return sgx.verify(_SGX_QUOTE, endorsements, now=NOW, roots=intel.roots())


def _sev_snp(data: bytes) -> Claims:
    return sev_snp.verify(data, _AMD, now=NOW, roots=amd.roots())


def _vek(data: bytes) -> Claims:
    vek = parse_certificate(data, step="x", what="x")
    endorsements = Endorsements((vek, *_AMD.certificates[1:]), _AMD.crls)
    return sev_snp.verify(_REPORT, endorsements, now=NOW, roots=amd.roots())


def _crl(data: bytes) -> Claims:
    endorsements = Endorsements(_AMD.certificates, (parse_crl(data, step="x"),))
    return sev_snp.verify(_REPORT, endorsements, now=NOW, roots=amd.roots())


def _chain(data: bytes) -> Claims:
    endorsements = parse_endorsements([(CERTIFICATE_CHAIN, data), (CERTIFICATE_LIST, _CRL)], step="x")
    return sev_snp.verify(_REPORT, endorsements, now=NOW, roots=amd.roots())


def _nitro(data: bytes) -> Claims:
    return nitro.verify(data, now=NOW, roots=aws.roots(), max_age=timedelta(hours=1))


def _tpm(data: bytes) -> Claims:
    return tpm.verify(data, _TPM, now=NOW, roots=tcg.roots())


def _tpm_message(data: bytes) -> Claims:
    return _tpm(encode(TpmEvidence(1, data, _QUOTE.signature(), _QUOTE.told_pcrs())))


def _tpm_signature(data: bytes) -> Claims:
    return _tpm(encode(TpmEvidence(1, _QUOTE.message(), data, _QUOTE.told_pcrs())))


def _azure(data: bytes) -> Claims:
    return azure_cvm.verify_snp(data, _AMD, now=NOW, roots=amd.roots())


def _hcl_report(data: bytes) -> Claims:
    return _azure(encode(AzureEvidence(1, _QUOTE.message(), _QUOTE.signature(), _QUOTE.told_pcrs(), data)))


_CRL = crl(amd.ARK).public_bytes(Encoding.DER)
_VERIFIERS: dict[str, tuple[Callable[[bytes], Claims], list[bytes]]] = {
    "sgx": (_sgx, [_SGX_QUOTE]),
    "tdx": (_tdx, [TDX4.encode(), TDX5.but(padding=bytes(50)).encode()]),
    "collateral": (_collateral, [SGX_COLLATERAL.encode()]),
    "sev-snp": (_sev_snp, [_REPORT]),
    "vek": (_vek, [_AMD.certificates[0].public_bytes(Encoding.DER)]),
    "crl": (_crl, [_CRL]),
    "chain": (_chain, [pem(*_AMD.certificates)]),
    "nitro": (_nitro, [aws.Document().encode()]),
    "tpm": (_tpm, [_QUOTE.encode()]),
    "tpm-message": (_tpm_message, [_QUOTE.message()]),
    "tpm-signature": (_tpm_signature, [_QUOTE.signature(), _QUOTE.but(bare=True).signature()]),
    "azure": (_azure, [_QUOTE.azure(_HCL)]),
    "hcl-report": (_hcl_report, [_HCL]),
}


def _target(verify: Callable[[bytes], Claims], corpus: list[bytes]) -> Target:
    """What is accepted must say what an element of the corpus says: only its padding or spelling may
    differ."""
    good = [_said(verify(data)) for data in corpus]

    def target(data: bytes) -> None:
        try:
            claims = verify(data)
        except VerificationError:
            return
        assert _said(claims) in good, "changed evidence was accepted"

    return target


def _said(claims: Claims) -> tuple[object, ...]:
    return claims.tee, claims.measurement, claims.report_data, claims.debug, claims.tcb_status, claims.details


def fuzz_event_log(data: bytes) -> None:
    """A log is a log, which then replays, or an ``EvidenceFormatError``."""
    for parse in (event_log.parse, event_log.parse_ccel, event_log.parse_json):
        try:
            log = parse(data)
            assert len(event_log.replay(log, "sha384", range(24))) == 24
        except EvidenceFormatError:
            continue


_SHA256_AND_384 = (0x0B, 0x0C)
EVENT_LOGS = [
    boot.header(_SHA256_AND_384)
    + b"".join(boot.event(index, 1, b"event" * index, _SHA256_AND_384) for index in range(1, 5))
    + bytes(100),
    b'[{"imr":3,"event_type":1,"digest":"' + b"ab" * 48 + b'","event":"e","event_payload":"ff"}]',
]

TARGETS: dict[str, tuple[Target, list[bytes]]] = {
    name: (_target(verify, corpus), corpus) for name, (verify, corpus) in _VERIFIERS.items()
} | {"event-log": (fuzz_event_log, EVENT_LOGS)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--target", choices=sorted(TARGETS), required=True)
    options, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    main(*TARGETS[options.target])
