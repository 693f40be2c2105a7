"""Attester, bundle and appraiser fit: what each TEE's device gives passes the one door to trust, and does not
for another statement or another measurement. The vendors' roots are those of the synthetic authorities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from confonnx.attestation.attest import azure_cvm, tpm
from confonnx.attestation.attest.attester import Attester
from confonnx.attestation.attest.azure_cvm import AzureOptions
from confonnx.attestation.attest.bound import BoundAttester
from confonnx.attestation.attest.endorsing import EndorsingAttester
from confonnx.attestation.attest.nitro import NitroAttester
from confonnx.attestation.attest.sev_snp import SevSnpAttester
from confonnx.attestation.attest.sev_snp import request_report as ask_sev_guest
from confonnx.attestation.attest.sgx import SgxAttester
from confonnx.attestation.attest.simulated import SimulatedAttester
from confonnx.attestation.attest.tdx import TdxAttester
from confonnx.attestation.attest.tpm import AK_HANDLE, TpmOptions
from confonnx.attestation.attest.tpm_commands import Tpm
from confonnx.attestation.attest.tpm_transport import parse_address
from confonnx.attestation.bundle import Bundle, parse_bundle
from confonnx.attestation.claims import Tee
from confonnx.attestation.endorse.endorser import Endorser
from confonnx.attestation.endorse.options import EndorsementOptions, Mode
from confonnx.attestation.policy import (
    ANY,
    DcapTcb,
    ModelDigests,
    OneOf,
    Policy,
    has_dcap_tcb,
    reference_values,
)
from confonnx.attestation.statement import Statement, report_data
from confonnx.attestation.verify import azure_cvm as verify_azure_cvm
from confonnx.attestation.verify import nitro as verify_nitro
from confonnx.attestation.verify import sev_snp as verify_sev_snp
from confonnx.attestation.verify import sgx as verify_sgx
from confonnx.attestation.verify import tdx as verify_tdx
from confonnx.attestation.verify.appraise import appraise
from confonnx.errors import BindingError, CheckError, PolicyError
from tests.support import simulated_server
from tests.support.authorities import amd, aws, intel
from tests.support.authorities.intel import SGX, TDX4, sgx_body, td_body
from tests.support.authorities.pki import NOW, crl, pem
from tests.support.authorities.tcg import binding, hcl_report
from tests.support.fake_devices import FakeNsm, FakeSevGuest
from tests.support.fake_imds import FakeImds, certification, fake_imds
from tests.support.fake_kernel import FakeFiles, FakeGramine, no_wait
from tests.support.fake_tsm import FakeTsm
from tests.support.fake_vendors import fake_vendors, kds_pages, pcs_pages
from tests.support.simulated_server import MODEL_DIGEST, NONCE
from tests.support.swtpm import running_swtpm
from tests.support.tpm_keys import certify, make_azure_key, put_nv, root, runtime_claims

VCEK, CHAIN = amd.Chip().vek().build(), pem(amd.ASK.build(), amd.ARK.build())
KDS_VCEK = f"/vcek/v1/Milan/{amd.CHIP_ID.hex()}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=219"
# What names the measurement in a policy, where that is not "measurement".
FIELDS = {Tee.SGX: "mrenclave", Tee.NITRO: "pcr0"}


@contextmanager
def on_sgx(directory: Path) -> Iterator[Attester]:
    yield SgxAttester(FakeGramine(lambda data: SGX.but(body=sgx_body(report_data=data)).encode()))


@contextmanager
def on_tdx(directory: Path) -> Iterator[Attester]:
    kernel = FakeTsm(lambda data: TDX4.but(body=td_body(report_data=data)).encode(), "tdx_guest")
    yield TdxAttester(kernel, no_wait)


@contextmanager
def on_sev_snp(directory: Path) -> Iterator[Attester]:
    device = FakeSevGuest(lambda data: amd.report({0x50: data}))
    yield SevSnpAttester(partial(ask_sev_guest, device.ioctl, wait=no_wait))


@contextmanager
def on_nitro(directory: Path) -> Iterator[Attester]:
    yield NitroAttester(
        FakeNsm(lambda asked: {"Attestation": {"document": aws.Document(asked).encode()}}).ioctl
    )


@contextmanager
def on_tpm(directory: Path) -> Iterator[Attester]:
    with running_swtpm(directory) as software:
        connect = parse_address(software.address)
        with connect() as transport:
            device = Tpm(transport, wait=no_wait)
            device.make_attestation_key(AK_HANDLE)
            key = device.read_public(AK_HANDLE)
        assert key is not None
        certificates = tuple(x509.load_pem_x509_certificates(certify(key.public_key)))
        yield tpm.open_attester(TpmOptions(connect, AK_HANDLE, certificates), FakeFiles(), wait=no_wait)


@contextmanager
def on_azure(tee: Tee, directory: Path) -> Iterator[Attester]:
    with running_swtpm(directory) as software, fake_imds(FakeImds()) as imds:
        claims = runtime_claims(make_azure_key(software, directory))
        imds.certificates = certification(pem(VCEK), CHAIN)
        imds.td_quote = lambda _: TDX4.but(body=td_body(report_data=binding(claims))).encode()
        snp, tdx = (
            hcl_report(amd.report({0x50: binding(claims)}), claims),
            hcl_report(bytes(1024), claims, kind=4),
        )
        report = snp if tee is Tee.AZURE_SNP else tdx
        put_nv(software, azure_cvm.HCL_REPORT_INDEX, report.rstrip(b"\0"), directory)
        options = AzureOptions(parse_address(software.address), imds.url)
        yield azure_cvm.open_attester(tee, options, FakeFiles(), wait=no_wait)


@contextmanager
def simulated(directory: Path) -> Iterator[Attester]:
    yield SimulatedAttester(b"\7" * 32)


MACHINES: dict[Tee, Callable[[Path], AbstractContextManager[Attester]]] = {
    Tee.SGX: on_sgx,
    Tee.TDX: on_tdx,
    Tee.SEV_SNP: on_sev_snp,
    Tee.AZURE_SNP: partial(on_azure, Tee.AZURE_SNP),
    Tee.AZURE_TDX: partial(on_azure, Tee.AZURE_TDX),
    Tee.NITRO: on_nitro,
    Tee.TPM: on_tpm,
    Tee.SIMULATED: simulated,
}


@pytest.fixture(autouse=True)
def synthetic_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verifiers pin our authorities in the place of the vendors."""
    for module, name, roots in (
        (verify_sgx, "verify", intel.roots()),
        (verify_tdx, "verify", intel.roots()),
        (verify_sev_snp, "verify", amd.roots()),
        (verify_nitro, "verify", aws.roots()),
        (verify_azure_cvm, "verify_snp", amd.roots()),
        (verify_azure_cvm, "verify_tdx", intel.roots()),
    ):
        monkeypatch.setattr(module, name, partial(getattr(module, name), roots=roots))


@pytest.fixture
def endorser(tmp_path: Path) -> Iterator[Endorser]:
    """Asks loopback in the place of AMD and Intel."""
    fmspc = intel.FMSPC.hex()
    pages = kds_pages(KDS_VCEK, VCEK, CHAIN, crl(amd.ARK), "Milan")
    pages |= pcs_pages(intel.SGX_COLLATERAL.encode(), tee="sgx", fmspc=fmspc)
    pages |= pcs_pages(intel.TDX_COLLATERAL.encode(), tee="tdx", fmspc=fmspc)
    with fake_vendors(pages) as vendors:
        made = Endorser(EndorsementOptions(Mode.CACHED, tmp_path / "cache", vendors.url, vendors.url))
        try:
            yield made
        finally:
            made.close()


def statement() -> Statement:
    """A statement of the authorities' day."""
    ring = simulated_server.ring(started_at=NOW)
    return replace(simulated_server.statement(), issued_at=NOW, keys=ring.attested_keys(NOW))


def policy(tee: Tee, measurement: bytes) -> Policy:
    """Accepts exactly this measurement of this TEE."""
    values = {FIELDS.get(tee, "measurement"): OneOf((measurement,))}
    if tee is Tee.TPM:
        values["root"] = OneOf((root(),))
    tcb = DcapTcb(min_tcb_evaluation_data_number=17) if has_dcap_tcb(tee) else None  # our Intel's
    return Policy((reference_values(tee, values, tcb=tcb),), ModelDigests((MODEL_DIGEST,)), ANY)


def make_bundle(attester: Attester, statement_bytes: bytes, bound: bytes | None = None) -> Bundle:
    """As the server makes and sends it."""
    evidence, endorsements = attester.collect(report_data(bound or statement_bytes))
    return parse_bundle(Bundle(statement_bytes, attester.evidence_type, evidence, endorsements).encode())


@pytest.mark.parametrize("tee", Tee)
def test_what_a_server_sends_is_what_a_client_takes(tee: Tee, endorser: Endorser, tmp_path: Path) -> None:
    directory = tmp_path / "machine"
    directory.mkdir()
    with MACHINES[tee](directory) as device:
        attester = BoundAttester(EndorsingAttester(device, endorser, lambda: NOW))
        measurement = attester.measure()
        ours = statement()
        bundle = make_bundle(attester, ours.encode())

        keys = appraise(bundle, policy(tee, measurement), nonce=NONCE, now=NOW)
        assert keys.claims.tee is tee
        assert keys.claims.measurement == measurement
        assert keys.statement == ours

        with pytest.raises(PolicyError):
            appraise(bundle, policy(tee, b"\x11" * len(measurement)), nonce=NONCE, now=NOW)
        with pytest.raises(BindingError):
            appraise(
                make_bundle(attester, ours.encode(), b"another"),
                policy(tee, measurement),
                nonce=NONCE,
                now=NOW,
            )
        with pytest.raises(BindingError):
            appraise(bundle, policy(tee, measurement), nonce=bytes(32), now=NOW)


@pytest.mark.parametrize("tee", [Tee.SGX, Tee.TDX, Tee.SEV_SNP, Tee.AZURE_SNP, Tee.AZURE_TDX])
def test_without_fetching_a_client_needs_endorsements_of_its_own(
    tee: Tee, endorser: Endorser, tmp_path: Path
) -> None:
    directory = tmp_path / "machine"
    directory.mkdir()
    with MACHINES[tee](directory) as device:
        attester = BoundAttester(device)
        accepted = policy(tee, attester.measure())
        bundle = make_bundle(attester, statement().encode())
    with pytest.raises(CheckError) as caught:
        appraise(bundle, accepted, nonce=NONCE, now=NOW)
    assert caught.value.code == "verification.endorsement"
    own = endorser.collect(bundle.evidence_type, bundle.evidence, bundle.endorsements, now=NOW, timeout=10)
    assert appraise(bundle, accepted, nonce=NONCE, now=NOW, endorsements=own).claims.tee is tee
