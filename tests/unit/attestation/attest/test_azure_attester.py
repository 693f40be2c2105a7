"""Azure confidential VMs: swtpm with a paravisor's report in it stands for the vTPM, a fake for IMDS."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from confonnx.attestation.attest import azure_cvm
from confonnx.attestation.attest.azure_cvm import ASSET_TAG_FILE, AzureAttester, AzureOptions
from confonnx.attestation.attest.tpm_transport import parse_address
from confonnx.attestation.claims import (
    AZURE_SNP_EVIDENCE,
    AZURE_TDX_EVIDENCE,
    CERTIFICATE_CHAIN,
    Claims,
    Tee,
)
from confonnx.attestation.formats import dcap_collateral
from confonnx.attestation.verify import azure_cvm as verifier
from confonnx.attestation.verify.dcap import DcapEndorsements
from confonnx.attestation.verify.x509 import Endorsements, parse_endorsements
from confonnx.errors import TeeError
from tests.support.authorities import amd, intel
from tests.support.authorities.intel import TDX4, TDX_COLLATERAL, td_body
from tests.support.authorities.pki import NOW, crl, pem, rsa_key
from tests.support.authorities.tcg import binding, hcl_report
from tests.support.fake_imds import FakeImds, certification, fake_imds
from tests.support.fake_kernel import FakeFiles, no_wait
from tests.support.swtpm import SoftwareTpm, running_swtpm
from tests.support.tpm_keys import make_azure_key, put_nv, runtime_claims

REPORT_DATA = bytes(range(64))
AZURE = FakeFiles({ASSET_TAG_FILE: b"7783-7084-3265-9085-8269-3286-77\n"})
VCEK, CHAIN = pem(amd.Chip().vek().build()), pem(amd.ASK.build(), amd.ARK.build())
TDREPORT = bytes(range(256)) * 4


@dataclass(frozen=True)
class Vm:
    """A VM's vTPM, its key, and its IMDS."""

    tpm: SoftwareTpm
    key: rsa.RSAPublicKey
    imds: FakeImds
    directory: Path

    def options(self) -> AzureOptions:
        return AzureOptions(parse_address(self.tpm.address), self.imds.url, lambda: 0.0)

    def put_report(self, tee: Tee, key: rsa.RSAPublicKey | None = None) -> None:
        """Let the paravisor write its report, of ``tee``, for the vTPM with ``key``."""
        claims = runtime_claims(key or self.key)
        if tee is Tee.AZURE_SNP:
            report = hcl_report(amd.report({0x50: binding(claims)}), claims)
        else:
            report = hcl_report(TDREPORT, claims, kind=4)
            body = td_body(report_data=binding(claims))
            self.imds.td_quote = lambda asked: TDX4.but(body=body).encode() if asked == TDREPORT else b""
        put_nv(self.tpm, azure_cvm.HCL_REPORT_INDEX, report.rstrip(b"\0"), self.directory)


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Vm]:
    directory = tmp_path / "swtpm"
    directory.mkdir()
    with running_swtpm(directory) as tpm, fake_imds(FakeImds(certification(VCEK, CHAIN))) as imds:
        yield Vm(tpm, make_azure_key(tpm, tmp_path), imds, tmp_path)


def find(vm: Vm) -> AzureAttester:
    found = azure_cvm.find(vm.options(), AZURE, wait=no_wait)
    assert found is not None
    return found


def verify(attester: AzureAttester) -> Claims:
    evidence, endorsements = attester.collect(REPORT_DATA)
    if attester.tee is Tee.AZURE_SNP:
        assert [kind for kind, _ in endorsements] == [CERTIFICATE_CHAIN]
        chain = parse_endorsements(endorsements, step="azure").certificates
        parsed = Endorsements(chain, (crl(amd.ARK),))  # IMDS has no CRL: clients fetch it, or the server
        return verifier.verify_snp(evidence, parsed, now=NOW, roots=amd.roots())
    assert endorsements == ()
    collateral = DcapEndorsements(dcap_collateral.parse(TDX_COLLATERAL.encode()))
    return verifier.verify_tdx(evidence, collateral, now=NOW, roots=intel.roots())


@pytest.mark.parametrize(
    ("tee", "evidence_type"), [(Tee.AZURE_SNP, AZURE_SNP_EVIDENCE), (Tee.AZURE_TDX, AZURE_TDX_EVIDENCE)]
)
def test_evidence_that_verifies(vm: Vm, tee: Tee, evidence_type: str) -> None:
    vm.put_report(tee)
    for attester in (find(vm), azure_cvm.open_attester(tee, vm.options(), AZURE, wait=no_wait)):
        assert (attester.tee, attester.evidence_type) == (tee, evidence_type)
        claims = verify(attester)
        assert (claims.tee, claims.report_data) == (tee, REPORT_DATA)


def test_imds_is_asked_once_an_hour(vm: Vm) -> None:
    vm.put_report(Tee.AZURE_SNP)
    hours = iter([0.0, 3599.0, 3600.0, 3601.0])
    options = replace(vm.options(), clock=lambda: next(hours))
    attester = azure_cvm.open_attester(Tee.AZURE_SNP, options, AZURE, wait=no_wait)
    asked = []
    for _ in range(4):
        attester.collect(REPORT_DATA)
        asked.append(len(vm.imds.asked))
    assert asked == [1, 1, 2, 2]


def test_imds_is_asked_again_for_another_report(vm: Vm) -> None:
    vm.put_report(Tee.AZURE_SNP)
    attester = find(vm)
    for _ in range(2):
        verify(attester)
        vm.put_report(Tee.AZURE_SNP)  # signed anew, as after new firmware
    assert len(vm.imds.asked) == 2


def test_a_vm_that_turned_into_another_kind(vm: Vm) -> None:
    vm.put_report(Tee.AZURE_SNP)
    attester = find(vm)
    vm.put_report(Tee.AZURE_TDX)
    with pytest.raises(TeeError, match="report is of azure-tdx, expected azure-snp"):
        attester.collect(REPORT_DATA)
    assert vm.imds.asked == []


def test_other_machines_have_none(vm: Vm) -> None:
    def touched() -> None:
        raise AssertionError("the TPM of another machine was opened")

    elsewhere = AzureOptions(touched)  # type: ignore[arg-type]
    assert azure_cvm.find(elsewhere, FakeFiles(), wait=no_wait) is None
    assert azure_cvm.find(elsewhere, FakeFiles({ASSET_TAG_FILE: b"None\n"}), wait=no_wait) is None
    assert azure_cvm.find(vm.options(), AZURE, wait=no_wait) is None  # Azure, and no paravisor
    with pytest.raises(TeeError, match="EACCES"):
        azure_cvm.find(elsewhere, FakeFiles({ASSET_TAG_FILE: errno.EACCES}), wait=no_wait)


def test_what_was_asked_for_must_be_there(vm: Vm) -> None:
    with pytest.raises(TeeError, match=r"no NV index 0x1400001.*this is none"):
        azure_cvm.open_attester(Tee.AZURE_SNP, vm.options(), AZURE, wait=no_wait)
    vm.put_report(Tee.AZURE_SNP)
    with pytest.raises(TeeError, match="report is of azure-snp, expected azure-tdx"):
        azure_cvm.open_attester(Tee.AZURE_TDX, vm.options(), AZURE, wait=no_wait)


def test_a_report_that_cannot_be_read(vm: Vm) -> None:
    put_nv(vm.tpm, azure_cvm.HCL_REPORT_INDEX, b"no report", vm.directory)
    with pytest.raises(TeeError, match="0x1400001 of the TPM holds no HCL report"):
        find(vm)


def test_a_vtpm_without_its_key(vm: Vm) -> None:
    vm.put_report(Tee.AZURE_SNP)
    attester = find(vm)
    vm.tpm.tool("tpm2_evictcontrol", "-C", "o", "-c", "0x81000003")
    with pytest.raises(TeeError, match="no attestation key at 0x81000003"):
        attester.collect(REPORT_DATA)


def test_a_key_that_the_paravisor_does_not_know(vm: Vm) -> None:
    vm.put_report(Tee.AZURE_SNP, rsa_key("another").public_key())
    with pytest.raises(TeeError, match=r"not the one that the paravisor vouches for"):
        find(vm).collect(REPORT_DATA)


def test_imds_that_fails(vm: Vm) -> None:
    vm.put_report(Tee.AZURE_SNP)
    vm.imds.status = 404
    with pytest.raises(TeeError, match="status 404"):
        find(vm).collect(REPORT_DATA)
