"""`confonnx verify`: each step with its outcome, exit by outcome, and what the verdict does not cover."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from confonnx.attestation.bundle import MEDIA_TYPE
from confonnx.attestation.policy import DangerousAnyModel
from confonnx.attestation.verify.appraise import STEP_IDS
from confonnx.attestation.verify.sgx import CHECKS
from tests.evidence.manifest import one, path
from tests.support import simulated_server as server
from tests.support.authorities import amd, intel
from tests.support.authorities.pki import crl, pem
from tests.support.commands import Run, confonnx
from tests.support.fake_vendors import FakeVendors, Page, fake_vendors, kds_pages, pcs_pages

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

NOW = "2026-11-24T08:00:00Z"
POLICY = """
version = 1
deployment = "any"
[models]
dangerous_any = true
[[server]]
"""
SGX_POLICY = (
    POLICY
    + """
tee = "sgx"
mrenclave = ["33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"]
tcb_statuses = ["UpToDate", "ConfigurationAndSWHardeningNeeded"]
min_tcb_evaluation_data_number = 17
"""
)
MEASUREMENT = (
    "a1f3930413247bb38cfc171579ea3c12d5fe4901f0c792f63fd75d98f1ef827c23500644e0e692e6be917f9050d3d38c"
)
SNP_POLICY = f"{POLICY}tee = 'sev-snp'\nmeasurement = ['{MEASUREMENT}']"


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONFONNX_URL", raising=False)


def written(directory: Path, name: str, content: str | bytes) -> Path:
    file = directory / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return written(tmp_path, "bundle.json", server.bundle().encode())


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return written(tmp_path, "policy.toml", server.policy().to_toml())


def outcomes(run: Run) -> dict[str, str]:
    return {step["id"]: step["outcome"] for step in json.loads(run.out)["steps"]}


# ---- bundles


def test_a_bundle_that_is_accepted(bundle: Path, policy: Path) -> None:
    run = confonnx(
        "verify", "--bundle", bundle, "--policy", policy, "--now", NOW, "--nonce", server.NONCE.hex()
    )
    assert run.status == 0
    lines = run.out.splitlines()
    assert [line[6:10] for line in lines if line[:4].strip().isdigit()].count("PASS") == len(STEP_IDS) - 1
    assert lines[2:7] == [
        "   3  PASS  evidence.genuine     the evidence is genuine",
        " 3.1  PASS  simulated.format     the evidence parses, in its one canonical spelling",
        " 3.2  PASS  simulated.root       it names the simulated root",
        " 3.3  PASS  simulated.signature  the root signed the body",
        "   4  PASS  binding.report-data  the evidence binds the statement",
    ]
    assert " 1  PASS  bundle.statement" in run.out
    assert "14  PASS  policy.deployment" in run.out
    assert lines[-1] == "ACCEPTED (not checked: policy.tcb)"  # simulated evidence has no TCB status


def test_a_bundle_without_its_nonce_says_so(bundle: Path, policy: Path) -> None:
    run = confonnx("verify", "--bundle", bundle, "--policy", policy, "--now", NOW)
    assert run.status == 0
    assert run.out.splitlines()[-1] == "ACCEPTED (not checked: binding.nonce, policy.tcb)"


def test_a_bundle_that_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = replace(server.policy(), deployments=("staging",), models=DangerousAnyModel())
    policy = written(tmp_path, "other.toml", other.to_toml())
    run = confonnx("verify", "--bundle", bundle, "--policy", policy, "--now", NOW)
    assert run.status == 3
    assert "14  FAIL  policy.deployment" in run.out
    assert "why: deployment: expected 'staging', found 'production'" in run.out
    assert "do:  use the server of the right deployment" in run.out
    assert run.out.splitlines()[-1] == "REFUSED (1 of 17 steps failed: policy.deployment)"


def test_json_says_the_same(bundle: Path, policy: Path) -> None:
    run = confonnx(
        "verify", "--bundle", bundle, "--policy", policy, "--now", "2027-01-01T00:00:00Z", "--json"
    )
    assert run.status == 3
    document = json.loads(run.out)
    assert (document["accepted"], document["bound"], document["code"]) == (
        False,
        False,
        "verification.policy",
    )
    assert [failure["code"] for failure in document["failures"]] == ["policy.freshness.age", "policy.keys"]
    assert [step["id"] for step in document["steps"] if not step["part_of"]] == list(STEP_IDS)
    assert {step["part_of"] for step in document["steps"]} == {"", "evidence.genuine"}
    failed = [step for step in document["steps"] if step["outcome"] == "FAIL"]
    assert [step["id"] for step in failed] == ["policy.freshness", "policy.keys"]
    assert all(step["reason"] and step["remedy"] for step in failed)


def test_a_bundle_for_another_nonce(bundle: Path, policy: Path) -> None:
    run = confonnx(
        "verify", "--bundle", bundle, "--policy", policy, "--now", NOW, "--nonce", "00" * 32, "--json"
    )
    assert run.status == 3
    assert [failure["code"] for failure in json.loads(run.out)["failures"]] == ["binding.nonce"]
    assert outcomes(run)["policy.models"] == "SKIP"


def test_simulated_evidence_under_a_hardware_policy(bundle: Path, tmp_path: Path) -> None:
    policy = written(tmp_path, "snp.toml", SNP_POLICY)
    run = confonnx("verify", "--bundle", bundle, "--policy", policy, "--now", NOW, "--json")
    assert run.status == 3
    assert "policy.tee" in [failure["code"] for failure in json.loads(run.out)["failures"]]


def test_what_is_no_bundle(tmp_path: Path, policy: Path) -> None:
    for content in (b"", b"{}", b"\xff" * 100, path("sgx/sgx-v3-phala.bin").read_bytes()):
        run = confonnx("verify", "--bundle", written(tmp_path, "b", content), "--policy", policy)
        assert (run.status, run.out) == (1, "")
        assert run.err.startswith("error: the bundle")


# ---- bare evidence


def sgx(policy: Path, *more: object) -> Run:
    return confonnx(
        "verify",
        "--evidence",
        path("sgx/sgx-v3-phala.bin"),
        "--endorsements",
        path("sgx/collateral-phala-sgx-quote.json"),
        "--policy",
        policy,
        "--now",
        "2025-06-20T10:56:11Z",
        *more,
    )


def test_bare_evidence_with_what_it_must_bind(tmp_path: Path) -> None:
    report_data = one("sgx/sgx-v3-phala.bin").expected["report_data"]
    run = sgx(written(tmp_path, "p.toml", SGX_POLICY), "--report-data", report_data)
    assert run.status == 0
    for number, check in enumerate(CHECKS, start=1):
        assert f"3.{number}  PASS  {check} " in run.out
    assert " 4  PASS  binding.report-data" in run.out
    assert "ACCEPTED AS EVIDENCE ALONE" in run.out
    not_checked = [
        "bundle.statement",
        "binding.nonce",
        "policy.freshness",
        "policy.keys",
        "policy.models",
        "policy.deployment",
    ]
    assert run.out.splitlines()[-1] == f"Not checked: {', '.join(not_checked)}"
    run = sgx(written(tmp_path, "p.toml", SGX_POLICY), "--report-data", report_data, "--json")
    document = json.loads(run.out)
    assert (document["accepted"], document["bound"], document["not_checked"]) == (True, True, not_checked)


def test_bare_evidence_that_binds_nothing_says_so_loudly(tmp_path: Path) -> None:
    run = sgx(written(tmp_path, "p.toml", SGX_POLICY))
    assert run.status == 0
    assert "WARNING: BOUND TO NOTHING" in run.out
    assert "ACCEPTED" not in run.out
    document = json.loads(sgx(written(tmp_path, "p.toml", SGX_POLICY), "--json").out)
    assert (document["accepted"], document["bound"]) == (True, False)
    assert "binding.report-data" in document["not_checked"]


@pytest.mark.parametrize("report_data", ["00" * 64, "48656c6c6f2c20776f726c6421", ""])
def test_bare_evidence_for_something_else(tmp_path: Path, report_data: str) -> None:
    policy = written(tmp_path, "p.toml", SGX_POLICY)
    run = sgx(policy, "--report-data", report_data, "--json")
    assert run.status == 3
    assert [failure["code"] for failure in json.loads(run.out)["failures"]] == ["binding.report-data"]


def test_bare_evidence_that_the_policy_refuses(tmp_path: Path) -> None:
    strict = SGX_POLICY.replace(', "ConfigurationAndSWHardeningNeeded"', "").replace("= 17", "= 18")
    run = sgx(written(tmp_path, "p.toml", strict), "--json")
    assert run.status == 3
    codes = [failure["code"] for failure in json.loads(run.out)["failures"]]
    assert codes == ["policy.tcb.status", "policy.tcb.evaluation"]


def test_a_snp_report_with_certificates_of_every_form(tmp_path: Path) -> None:
    run = confonnx(
        "verify",
        "--evidence",
        path("snp/milan-v2-trustee.bin"),
        *(
            word
            for name in ("milan-v2-trustee.vcek.der", "chain-milan.pem", "crl-milan.pem")
            for word in ("--endorsements", path(f"snp/{name}"))
        ),
        "--policy",
        written(tmp_path, "p.toml", SNP_POLICY),
        "--now",
        "2025-05-07T00:00:00Z",
        "--report-data",
        one("snp/milan-v2-trustee.bin").expected["report_data"],
    )
    assert run.status == 0, run.out


def test_expired_collateral_names_the_item_and_the_remedy(tmp_path: Path) -> None:
    run = sgx(written(tmp_path, "p.toml", SGX_POLICY), "--now", "2025-07-19T10:15:00Z")
    assert run.status == 3
    assert "QE Identity is valid from 2025-06-19T10:01:18+00:00 to 2025-07-19T10:01:18+00:00" in run.out
    assert "[dcap.qe-identity]" in run.out
    assert "get current collateral, and check the clock" in run.out


def test_a_tampered_report_is_told_by_its_check(tmp_path: Path) -> None:
    quote = bytearray(path("sgx/sgx-v3-phala.bin").read_bytes())
    quote[112] ^= 1  # MRENCLAVE
    run = confonnx(
        "verify",
        "--evidence",
        written(tmp_path, "quote.bin", bytes(quote)),
        "--endorsements",
        path("sgx/collateral-phala-sgx-quote.json"),
        "--policy",
        written(tmp_path, "p.toml", SGX_POLICY),
        "--now",
        "2025-06-20T10:56:11Z",
        "--json",
    )
    assert run.status == 3
    assert [failure["code"] for failure in json.loads(run.out)["failures"]] == ["dcap.signature"]
    assert outcomes(run)["evidence.genuine"] == "FAIL"
    at = list(CHECKS).index("dcap.signature")
    own = [outcomes(run)[check] for check in CHECKS]
    assert own == ["PASS"] * at + ["FAIL"] + ["SKIP"] * (len(CHECKS) - at - 1)
    assert outcomes(run)["policy.code"] == "SKIP"


def test_evidence_of_one_tee_labelled_as_another(tmp_path: Path) -> None:
    run = sgx(written(tmp_path, "p.toml", SGX_POLICY), "--type", "tdx", "--json")
    assert run.status == 3
    assert [failure["code"] for failure in json.loads(run.out)["failures"]] == ["tdx.tee"]


# ---- endorsements from the vendors


@pytest.fixture
def vendors() -> Iterator[FakeVendors]:
    collateral = path("sgx/collateral-phala-sgx-quote.json").read_bytes()
    with fake_vendors(pcs_pages(collateral, tee="sgx", fmspc="00a067110000", pck_ca="processor")) as vendors:
        yield vendors


def fetched(vendors: FakeVendors, policy: Path, *more: object, mode: str = "fetch") -> Run:
    return confonnx(
        "verify",
        "--evidence",
        path("sgx/sgx-v3-phala.bin"),
        "--endorsements",
        mode,
        "--intel-pcs-url",
        vendors.url,
        "--amd-kds-url",
        vendors.url,
        "--policy",
        policy,
        "--now",
        "2025-06-20T10:56:11Z",
        *more,
    )


def test_endorsements_are_fetched_where_wanted(vendors: FakeVendors, tmp_path: Path) -> None:
    run = fetched(vendors, written(tmp_path, "p.toml", SGX_POLICY), "--json")
    assert run.status == 0, run.out
    assert outcomes(run)["endorsements.fetch"] == "PASS"
    assert len(vendors.asked) == 4


def test_endorsements_are_never_fetched_unasked(vendors: FakeVendors, tmp_path: Path) -> None:
    run = fetched(vendors, written(tmp_path, "p.toml", SGX_POLICY), "--json", mode="bundled")
    assert run.status == 3
    assert [failure["code"] for failure in json.loads(run.out)["failures"]] == ["dcap.collateral"]
    assert "endorsements.fetch" not in outcomes(run)
    assert vendors.asked == []


def test_endorsements_are_kept_where_wanted(vendors: FakeVendors, tmp_path: Path) -> None:
    policy = written(tmp_path, "p.toml", SGX_POLICY)
    for _ in range(2):
        run = fetched(vendors, policy, "--endorsements-cache", tmp_path / "cache", mode="cached")
        assert run.status == 0
    assert len(vendors.asked) == 4


def test_a_vendor_without_the_document(vendors: FakeVendors, tmp_path: Path) -> None:
    vendors.pages.clear()
    run = fetched(vendors, written(tmp_path, "p.toml", SGX_POLICY), "--json")
    assert run.status == 3
    assert outcomes(run) == {"endorsements.fetch": "FAIL"}
    assert [failure["code"] for failure in json.loads(run.out)["failures"]] == ["endorse.missing"]


def test_a_malformed_statement_is_told_by_its_code(tmp_path: Path, policy: Path) -> None:
    plain = server.bundle()
    bundle = written(tmp_path, "b.json", replace(plain, statement=plain.statement + b" ").encode())
    run = confonnx("verify", "--bundle", bundle, "--policy", policy, "--now", NOW, "--json")
    assert run.status == 1
    assert [failure["code"] for failure in json.loads(run.out)["failures"]] == ["protocol.bundle"]
    assert outcomes(run)["bundle.statement"] == "FAIL"


def test_a_vendor_that_is_away_is_no_verdict(vendors: FakeVendors, tmp_path: Path) -> None:
    policy = written(tmp_path, "p.toml", SGX_POLICY)
    for page in vendors.pages:
        vendors.pages[page] = Page(status=500)
    assert fetched(vendors, policy).status == 4


def test_evidence_that_cannot_be_read_is_not_asked_about(vendors: FakeVendors, tmp_path: Path) -> None:
    policy = written(tmp_path, "p.toml", SGX_POLICY)
    cut = written(tmp_path, "cut.bin", path("sgx/sgx-v3-phala.bin").read_bytes()[:400])
    run = fetched(vendors, policy, "--evidence", cut, "--json")
    assert run.status == 3
    assert outcomes(run)["endorsements.fetch"] == "SKIP"
    assert outcomes(run)["evidence.genuine"] == "FAIL"
    assert vendors.asked == []


def test_simulated_evidence_has_no_vendor(vendors: FakeVendors, bundle: Path, policy: Path) -> None:
    run = confonnx(
        "verify", "--bundle", bundle, "--policy", policy, "--now", NOW, "--endorsements", "fetch", "--json"
    )
    assert run.status == 0
    assert outcomes(run)["endorsements.fetch"] == "SKIP"


def test_a_fetched_forgery_is_refused(tmp_path: Path) -> None:
    """A vendor's service, or who stands between, can make a verifier refuse and never accept."""
    vcek = f"/vcek/v1/Milan/{amd.CHIP_ID.hex()}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=219"
    chain = pem(amd.ASK.build(), amd.ARK.build())
    pages = kds_pages(vcek, amd.Chip().vek().build(), chain, crl(amd.ARK), "Milan")
    with fake_vendors(pages) as vendors:
        run = fetched(
            vendors,
            written(tmp_path, "p.toml", SNP_POLICY),
            "--evidence",
            written(tmp_path, "report.bin", amd.report()),
            "--now",
            "2026-03-01T12:00:00Z",
            "--json",
        )
    assert run.status == 3
    assert [failure["code"] for failure in json.loads(run.out)["failures"]] == ["sev-snp.root"]


def test_a_quote_under_another_root_is_refused(tmp_path: Path) -> None:
    run = confonnx(
        "verify",
        "--evidence",
        written(tmp_path, "quote.bin", intel.SGX.encode()),
        "--endorsements",
        written(tmp_path, "collateral.json", intel.SGX_COLLATERAL.encode()),
        "--policy",
        written(tmp_path, "p.toml", SGX_POLICY),
        "--now",
        "2026-03-01T12:00:00Z",
        "--json",
    )
    assert run.status == 3
    assert [failure["code"] for failure in json.loads(run.out)["failures"]] == ["dcap.root"]


# ---- options that do not go together


def usage_errors(tmp_path: Path) -> list[tuple[tuple[object, ...], str]]:
    quote, collateral = path("sgx/sgx-v3-phala.bin"), path("sgx/collateral-phala-sgx-quote.json")
    bundle = written(tmp_path, "bundle.json", server.bundle().encode())
    return [
        ((), "exactly one of --url, --bundle, --evidence"),
        (("--bundle", bundle, "--evidence", quote), "exactly one of"),
        (("--bundle", bundle, "--url", "http://localhost/"), "exactly one of"),
        (("--bundle", bundle, "--report-data", "00"), "go with --evidence"),
        (("--bundle", bundle, "--type", "sgx"), "go with --evidence"),
        (("--evidence", quote, "--nonce", "00"), "--nonce goes with --bundle"),
        (("--bundle", bundle, "--nonce", "xyz"), "--nonce takes hexadecimal digits"),
        (("--evidence", quote, "--report-data", "xyz"), "--report-data takes hexadecimal digits"),
        (("--evidence", quote, "--now", "yesterday"), "--now takes a time"),
        (("--evidence", quote, "--now", "2025-01-01"), "--now takes a time"),
        (("--evidence", bundle), "give it as --bundle"),
        (("--evidence", collateral), "proves nothing by itself"),
        (("--evidence", path("az-tdx-vtpm/trustee-hcl-report.bin")), "proves nothing by itself"),
        (("--evidence", written(tmp_path, "junk", b"junk")), "neither evidence nor endorsements"),
        (("--evidence", tmp_path / "missing"), "cannot read"),
        (("--evidence", quote, "--endorsements", quote), "expected endorsements"),
        (
            ("--evidence", quote, "--endorsements", "fetch", "--endorsements", collateral),
            "takes files, or one",
        ),
        (("--evidence", quote, "--endorsements", "fetch", "--endorsements", "cached"), "takes files, or one"),
        (("--evidence", quote, "--endorsements", written(tmp_path, "big", b"x" * (1 << 20 | 1))), "at most"),
        (("--evidence", quote, "--endorsements", "fetch", "--intel-pcs-url", "nowhere"), "intel_pcs_url"),
    ]


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    policy = written(tmp_path, "p.toml", SGX_POLICY)
    for words, text in usage_errors(tmp_path):
        run = confonnx("verify", "--policy", policy, *words)
        assert (run.status, run.out) == (2, ""), words
        assert text in run.err, words


def test_no_policy_is_an_error(bundle: Path) -> None:
    run = confonnx("verify", "--bundle", bundle)
    assert (run.status, run.out) == (2, "")


def test_files_and_the_word_bundled_go_together(tmp_path: Path) -> None:
    assert sgx(written(tmp_path, "p.toml", SGX_POLICY), "--endorsements", "bundled").status == 0


def test_an_address_in_the_environment_gives_way_to_a_file(
    bundle: Path, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFONNX_URL", "http://127.0.0.1:1/")
    assert confonnx("verify", "--bundle", bundle, "--policy", policy, "--now", NOW).status == 0
    assert confonnx("verify", "--policy", policy).status == 4  # nobody listens there


def test_a_server_is_verified_with_a_fresh_nonce(policy: Path) -> None:
    with fake_vendors() as host:
        host.otherwise = Page(server.bundle().encode(), fields={"content-type": MEDIA_TYPE})
        run = confonnx("verify", "--url", host.url, "--policy", policy, "--now", NOW, "--json")
    assert run.status == 3  # a replayed answer, for another nonce
    assert [failure["code"] for failure in json.loads(run.out)["failures"]] == ["binding.nonce"]
