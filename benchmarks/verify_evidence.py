"""How long the verification of real evidence takes, one TEE a line.

``python -m benchmarks.verify_evidence [--seconds 1] [--vectors ../shared/vectors] [--json FILE]``

Each line is evidence of real hardware with its endorsements, at a time when these were valid, appraised as a
client does it: everything is parsed anew, then come chain, revocation, signatures and the policy. One thread;
the median of as many as fit. There is no real evidence of a TPM with the certificate of its key, and none of
an Azure VM on TDX that a verifier may accept, so these two are not in the table.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.quantiles import Spread, spread
from confonnx.attestation import claims as media_types
from confonnx.attestation.claims import TcbStatus, Tee
from confonnx.attestation.formats.evidence import AzureEvidence, encode
from confonnx.attestation.policy import (
    ANY,
    DangerousAnyModel,
    DcapTcb,
    OneOf,
    Policy,
    fields_of,
    has_dcap_tcb,
    reference_values,
)
from confonnx.attestation.verify.appraise import appraise_evidence
from confonnx.attestation.verify.dispatch import Endorsements, tee_of_evidence, verify_evidence
from confonnx.attestation.verify.steps import UNTRACED

_VECTORS: Final = Path(__file__).resolve().parents[1].parent / "shared/vectors"


@dataclass(frozen=True, slots=True)
class Case:
    """Evidence of one TEE: its media type, its endorsements, and when they are valid."""

    file: str
    evidence_type: str
    evidence: bytes
    endorsements: Endorsements
    now: datetime

    @property
    def tee(self) -> Tee:
        """Whose evidence it is."""
        return tee_of_evidence(self.evidence_type)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds for one verification, over ``count`` of them."""

    tee: Tee
    file: str
    seconds: Spread
    count: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the JSON file if one is wanted."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.verify_evidence", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to measure each")
    parser.add_argument("--vectors", type=Path, default=_VECTORS, help="where the real evidence is")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    timings = [measure(case, seconds=options.seconds) for case in real_cases(options.vectors)]
    sys.stdout.write(table(timings))
    if options.json is not None:
        options.json.write_text(to_json(timings), "utf-8")
    return 0


def real_cases(vectors: Path) -> tuple[Case, ...]:
    """Evidence of each TEE, from the files in ``vectors``."""
    sgx_collateral = (vectors / "sgx/collateral-phala-sgx-quote.json").read_bytes()
    tdx_collateral = (vectors / "tdx/collateral-phala-tdx-quote.json").read_bytes()
    envelope, azure_vcek = _azure(vectors / "az-snp-vtpm/trustee-evidence-v1.json")
    return (
        _case(vectors, "sgx/sgx-v3-phala.bin", media_types.SGX_QUOTE, "2025-06-20T10:56:11Z", sgx_collateral),
        _case(vectors, "tdx/tdx-v4-phala.bin", media_types.TDX_QUOTE, "2025-06-20T10:32:27Z", tdx_collateral),
        Case(
            "snp/milan-v2-trustee.bin",
            media_types.SEV_SNP_REPORT,
            (vectors / "snp/milan-v2-trustee.bin").read_bytes(),
            _amd(vectors, (vectors / "snp/milan-v2-trustee.vcek.der").read_bytes()),
            datetime.fromisoformat("2025-05-07T00:00:00Z"),
        ),
        Case(
            "az-snp-vtpm/trustee-evidence-v1.json",
            media_types.AZURE_SNP_EVIDENCE,
            encode(envelope),
            _amd(vectors, azure_vcek),
            datetime.fromisoformat("2025-05-07T00:00:00Z"),
        ),
        _case(
            vectors, "nitro/nitro-2025-dstack-nsm.cbor", media_types.NITRO_DOCUMENT, "2025-12-25T13:20:00Z"
        ),
    )


def measure(case: Case, *, seconds: float) -> Timing:
    """Verifies again and again for ``seconds``, at least once. Raises ``VerificationError`` if refused."""
    policy = _policy_for(case)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        started = time.perf_counter()
        appraise_evidence(
            case.evidence_type,
            case.evidence,
            policy,
            expected_report_data=None,
            now=case.now,
            endorsements=case.endorsements,
        )
        times.append(time.perf_counter() - started)
    return Timing(case.tee, case.file, spread(times), len(times))


def table(timings: Sequence[Timing]) -> str:
    """For people."""
    lines = [f"{'TEE':10} {'median':>8}  {'quartiles':>14}  {'n':>6}  evidence"]
    for timing in timings:
        low, median, high = (
            1000 * value for value in (timing.seconds.low, timing.seconds.median, timing.seconds.high)
        )
        lines.append(
            f"{timing.tee:10} {median:5.2f} ms  {low:5.2f} to {high:5.2f}  {timing.count:>6}  {timing.file}"
        )
    return "\n".join(lines) + "\n"


def to_json(timings: Sequence[Timing]) -> str:
    """For programs. Times in seconds."""
    document = [
        {
            "tee": str(timing.tee),
            "evidence": timing.file,
            "median": timing.seconds.median,
            "quartiles": [timing.seconds.low, timing.seconds.high],
            "count": timing.count,
        }
        for timing in timings
    ]
    return json.dumps(document, indent=2) + "\n"


def _case(vectors: Path, file: str, evidence_type: str, now: str, collateral: bytes | None = None) -> Case:
    endorsements = () if collateral is None else ((media_types.DCAP_COLLATERAL, collateral),)
    return Case(file, evidence_type, (vectors / file).read_bytes(), endorsements, datetime.fromisoformat(now))


def _amd(vectors: Path, vcek: bytes) -> Endorsements:
    pem = x509.load_der_x509_certificate(vcek).public_bytes(Encoding.PEM)
    crl = x509.load_pem_x509_crl((vectors / "snp/crl-milan.pem").read_bytes()).public_bytes(Encoding.DER)
    chain = pem + (vectors / "snp/chain-milan.pem").read_bytes()
    return ((media_types.CERTIFICATE_CHAIN, chain), (media_types.CERTIFICATE_LIST, crl))


def _azure(path: Path) -> tuple[AzureEvidence, bytes]:
    """Our envelope around the parts of another project's, and the VCEK's DER."""
    document = json.loads(path.read_bytes())
    quote = document["tpm_quote"]
    values = {str(index): value for index, value in enumerate(quote["pcrs"])}
    envelope = AzureEvidence(
        1,
        bytes.fromhex(quote["message"]),
        bytes.fromhex(quote["signature"]),
        {"sha256": values},
        _unbase64(document["hcl_report"]),
    )
    return envelope, _unbase64(document["vcek"])


def _unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _policy_for(case: Case) -> Policy:
    """A policy that names exactly what the evidence shows."""
    any_code = Policy.simple(enclave_hash="00" * 31 + "01", dangerous_any_model=True)
    claims = verify_evidence(
        case.tee, case.evidence, case.endorsements, policy=any_code, now=case.now, checks=UNTRACED
    )
    tcb = None
    if has_dcap_tcb(case.tee):
        tcb = DcapTcb(statuses=(TcbStatus(claims.tcb_status),), min_tcb_evaluation_data_number=0)
    whole = fields_of(case.tee)[0].key
    server = reference_values(case.tee, {whole: OneOf((claims.measurement,))}, tcb=tcb)
    return Policy(accepted=(server,), models=DangerousAnyModel(), deployments=ANY)


if __name__ == "__main__":
    sys.exit(main())
