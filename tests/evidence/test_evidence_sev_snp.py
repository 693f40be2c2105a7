"""Real SEV-SNP reports, each at its own time, with the fields and the verdict of the manifest."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.claims import Claims, SevSnpClaims, SnpTcb, Tee
from confonnx.attestation.formats import snp_report
from confonnx.attestation.policy import Policy
from confonnx.attestation.verify import sev_snp
from confonnx.attestation.verify.x509 import Endorsements
from confonnx.errors import EndorsementError, EvidenceError
from tests.evidence.manifest import Vector, evidence, one, read

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

VECTORS = evidence("snp")
VERIFIABLE = [v for v in VECTORS if v.verdict in ("valid", "genuine_but_rejected")]
MILAN_CRL_CURRENT = datetime(2025, 6, 1, tzinfo=UTC)


def certificates(*files: str) -> tuple[x509.Certificate, ...]:
    found: list[x509.Certificate] = []
    for file in files:
        data = read(file)
        if data.startswith(b"-----"):
            found += x509.load_pem_x509_certificates(data)
        else:
            found.append(x509.load_der_x509_certificate(data))
    return tuple(found)


def milan_crl() -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl(read("snp/crl-milan.pem"))


def verify(v: Vector) -> Claims:
    assert v.now is not None
    endorsements = Endorsements(certificates(*v.goes_with), ())
    return sev_snp.verify(v.data, endorsements, now=v.now, dangerous_skip_revocation=True)


@pytest.mark.parametrize("v", VERIFIABLE, ids=lambda v: v.file)
def test_verdict_and_fields(v: Vector) -> None:
    claims = verify(v)
    details = claims.details
    assert isinstance(details, SevSnpClaims)
    expected = v.expected
    assert claims.tee is Tee.SEV_SNP
    assert claims.debug is expected["debug"]
    assert claims.measurement.hex() == details.measurement.hex() == expected["measurement"]
    assert claims.report_data.hex() == expected["report_data"]
    assert claims.security_version == details.guest_svn == expected["guest_svn"]
    for name in (
        "host_data",
        "id_key_digest",
        "author_key_digest",
        "family_id",
        "image_id",
        "report_id",
        "chip_id",
    ):
        assert getattr(details, name).hex() == expected[name], name
    for name in ("version", "vmpl", "policy", "platform_info", "signing_key", "product"):
        assert getattr(details, name) == expected[name], name
    for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
        assert getattr(details, name) == tcb(expected[name]), name


def tcb(expected: dict[str, int]) -> SnpTcb:
    return SnpTcb(
        boot_loader=expected["bootloader"],
        tee=expected["tee"],
        snp=expected["snp"],
        microcode=expected["microcode"],
        fmc=expected.get("fmc"),
    )


def test_every_genuine_report_that_must_be_rejected_says_debug() -> None:
    rejected = [v for v in VERIFIABLE if v.verdict == "genuine_but_rejected"]
    assert [v.file for v in rejected] == ["snp/milan-v2-debug-google.bin"]
    assert all(verify(v).debug for v in rejected)


def test_a_vlek_names_its_cloud() -> None:
    details = verify(one("snp/milan-v3-vlek-aws.bin")).details
    assert isinstance(details, SevSnpClaims)
    assert details.csp_id == "CN=cc-us-east-2.amazonaws.com"


@pytest.mark.parametrize(
    ("file", "codes"),
    [
        ("snp/milan-v3-vlek-aws.bin", ["policy.platform.vmpl"]),
        ("snp/genoa-v3-msft.bin", ["policy.platform.host-data"]),
        ("snp/milan-v3-msft.bin", ["policy.platform.host-data"]),
        ("snp/turin-v5-msft.bin", ["policy.platform.host-data"]),
        ("snp/milan-v2-trustee.bin", []),
    ],
)
def test_the_simple_policy_says_which_line_a_guest_of_a_cloud_needs(file: str, codes: list[str]) -> None:
    claims = verify(one(file))
    policy = Policy.simple(enclave_hash=claims.measurement.hex(), dangerous_any_model=True)
    failures = policy.check_claims(claims, now=MILAN_CRL_CURRENT)
    assert [failure.code for failure in failures] == codes
    lines = [failure.text.split("state ")[1].split(" in [[server]]")[0] for failure in failures]
    text = policy.to_toml().replace('tee = "sev-snp"\n', "\n".join(['tee = "sev-snp"', *lines, ""]))
    assert Policy.from_toml(text).check_claims(claims, now=MILAN_CRL_CURRENT) == ()


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ('signing_key = ["VLEK"]', []),
        ('csp_id = ["CN=cc-us-east-2.amazonaws.com"]', []),
        ('signing_key = ["VCEK"]', ["policy.platform.signing-key"]),
        ('csp_id = ["CN=cc-eu-west-1.amazonaws.com"]', ["policy.platform.csp-id"]),
        (f'chip_id = ["{"01" * 64}"]', ["policy.platform.chip-id"]),
    ],
)
def test_whose_machine_it_is_can_be_stated(line: str, codes: list[str]) -> None:
    claims = verify(one("snp/milan-v3-vlek-aws.bin"))
    policy = Policy.from_toml(
        'version = 1\ndeployment = "any"\n[models]\ndangerous_any = true\n[[server]]\ntee = "sev-snp"\n'
        f'measurement = ["{claims.measurement.hex()}"]\nvmpl = [1]\n{line}\n'
    )
    assert [failure.code for failure in policy.check_claims(claims, now=MILAN_CRL_CURRENT)] == codes


@pytest.mark.parametrize("v", [v for v in VECTORS if v not in VERIFIABLE], ids=lambda v: v.file)
def test_a_report_without_certificates_parses(v: Vector) -> None:
    report = snp_report.parse(v.data)
    assert report.measurement.hex() == v.expected["measurement"]
    assert report.version == v.expected["version"]
    assert report.chip_id.hex() == v.expected["chip_id"]


@pytest.mark.parametrize(
    "file", ["snp/milan-v2-debug-google.bin", "snp/milan-v2-trustee.bin", "snp/milan-v3-vlek-aws.bin"]
)
def test_the_published_crl_is_checked(file: str) -> None:
    v = one(file)
    endorsements = Endorsements(certificates(*v.goes_with), (milan_crl(),))
    claims = sev_snp.verify(v.data, endorsements, now=MILAN_CRL_CURRENT)
    assert claims.valid_until is not None
    assert claims.valid_until <= datetime(2026, 5, 12, tzinfo=UTC)


def test_without_a_crl_nothing_is_accepted() -> None:
    v = one("snp/milan-v3-msft.bin")
    assert v.now is not None
    with pytest.raises(EndorsementError, match=r"no CRL .*\[sev-snp\.crl\]"):
        sev_snp.verify(v.data, Endorsements(certificates(*v.goes_with), ()), now=v.now)


def test_a_crl_that_ran_out_is_refused() -> None:
    v = one("snp/milan-v3-msft.bin")
    with pytest.raises(EndorsementError, match=r"2026-05-12.*\[sev-snp\.crl\]"):
        sev_snp.verify(
            v.data,
            Endorsements(certificates(*v.goes_with), (milan_crl(),)),
            now=datetime(2026, 5, 13, tzinfo=UTC),
        )


@pytest.mark.parametrize("kind", ["legacy", "new"])
def test_the_manifests_invalid_certificates(kind: str) -> None:
    v = one("snp/milan-v2-trustee.bin")
    assert one(f"snp/milan-v2-trustee.vcek-invalid-{kind}.der").verdict == "invalid"
    assert v.now is not None
    wrong = certificates(f"snp/milan-v2-trustee.vcek-invalid-{kind}.der", "snp/chain-milan.pem")
    with pytest.raises(EndorsementError) as caught:
        sev_snp.verify(v.data, Endorsements(wrong, ()), now=v.now, dangerous_skip_revocation=True)
    assert caught.value.check == "sev-snp.chain"


def test_the_vcek_of_another_chip() -> None:
    v = one("snp/milan-v3-msft.bin")
    assert v.now is not None
    other = certificates("snp/milan-v2-trustee.vcek.der", "snp/chain-milan.pem")
    with pytest.raises(EvidenceError) as caught:
        sev_snp.verify(v.data, Endorsements(other, ()), now=v.now, dangerous_skip_revocation=True)
    assert caught.value.check == "sev-snp.signature"


def test_bundle_entries_verify() -> None:
    from confonnx.attestation.claims import CERTIFICATE_CHAIN, CERTIFICATE_LIST
    from confonnx.attestation.verify.x509 import parse_endorsements

    v = one("snp/milan-v3-msft.bin")
    assert v.now is not None
    pem = b"".join(read(file) for file in v.goes_with)
    crl = milan_crl().public_bytes(Encoding.DER)
    endorsements = parse_endorsements([(CERTIFICATE_CHAIN, pem), (CERTIFICATE_LIST, crl)], step="sev-snp")
    assert sev_snp.verify(v.data, endorsements, now=v.now).tee is Tee.SEV_SNP
