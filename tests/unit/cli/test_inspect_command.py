"""`confonnx inspect`: evidence of any kind is told by its content, and every field has its vendor's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.bundle import MEDIA_TYPE, Bundle
from confonnx.attestation.claims import CERTIFICATE_CHAIN, DCAP_COLLATERAL
from confonnx.attestation.formats import evidence
from confonnx.attestation.formats.dcap_quote import SgxBody, TdBody
from confonnx.attestation.formats.evidence import AzureEvidence, TpmEvidence
from confonnx.attestation.formats.nitro_document import NitroDocument
from confonnx.attestation.formats.snp_report import SnpReport
from confonnx.attestation.formats.tpm import TpmQuote
from confonnx.cli import vendor_fields
from tests.evidence.manifest import one, path, read
from tests.support import simulated_server as server
from tests.support.authorities import aws, intel
from tests.support.commands import confonnx
from tests.support.fake_vendors import Page, fake_vendors

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONFONNX_URL", raising=False)


def inspected(*words: object) -> dict[str, Any]:
    run = confonnx("inspect", *words, "--json")
    assert run.status == 0, run.err
    document: dict[str, Any] = json.loads(run.out)
    assert document["verified"] is False
    return document


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (SnpReport, vendor_fields.SNP_REPORT),
        (SgxBody, vendor_fields.SGX_BODY),
        (TdBody, vendor_fields.TD_BODY),
        (NitroDocument, vendor_fields.NITRO_DOCUMENT),
        (TpmQuote, vendor_fields.TPM_QUOTE),
    ],
)
def test_every_field_has_a_name(kind: Any, table: Mapping[str, str | None]) -> None:
    assert {field.name for field in fields(kind)} == set(table)


@pytest.mark.parametrize(
    ("file", "kind", "members"),
    [
        ("sgx/sgx-v3-phala.bin", "sgx", {"version": 3}),
        ("tdx/tdx-v4-gce-cos113.bin", "tdx", {"version": 4}),
        ("tdx/tdx-v5-google.bin", "tdx", {"version": 5}),
        ("snp/milan-v2-trustee.bin", "sev-snp", {"VERSION": 2, "KEY_INFO.SIGNING_KEY": "VCEK"}),
        ("snp/milan-v3-vlek-aws.bin", "sev-snp", {"VERSION": 3, "KEY_INFO.SIGNING_KEY": "VLEK"}),
        ("snp/milan-v2-debug-google.bin", "sev-snp", {"POLICY.DEBUG": True}),
        ("snp/turin-v5-msft.bin", "sev-snp", {"VERSION": 5, "LAUNCH_MIT_VECTOR": "3f00000000000000"}),
        (
            "nitro/nitro-2025-dstack-nsm.cbor",
            "nitro",
            {"module_id": "i-0827e799ec9232d44-enc019b55a68bd2ed4b"},
        ),
        ("az-snp-vtpm/trustee-hcl-report-milan-v2.bin", "hcl-report", {"report type": "SNP"}),
        ("az-tdx-vtpm/trustee-hcl-report.bin", "hcl-report", {"report type": "TDX"}),
        ("tpm/keylime-quote.out", "tpm-quote", {"clockInfo.clock": 5994}),
        ("tpm/tcg-eventlog-openpcc.bin", "event-log", {}),
        ("snp/chain-milan.pem", "certificates", {}),
        ("snp/milan-v2-trustee.vcek.der", "certificates", {}),
        ("snp/crl-milan.pem", "crl", {"thisUpdate": "2025-05-06T12:39:06+00:00"}),
        ("sgx/collateral-phala-sgx-quote.json", "collateral", {}),
    ],
)
def test_a_file_is_told_by_its_content(file: str, kind: str, members: dict[str, object]) -> None:
    document = inspected(path(file))
    assert document["type"] == kind
    assert {name: document[name] for name in members} == members
    assert inspected(path(file), "--type", kind) == document


def test_a_quote_in_the_terms_of_its_manual() -> None:
    expected = one("sgx/sgx-v3-phala.bin").expected
    body = inspected(path("sgx/sgx-v3-phala.bin"))["body"]
    assert body["MRENCLAVE"] == expected["mrenclave"]
    assert body["MRSIGNER"] == expected["mrsigner"]
    assert body["REPORTDATA"] == expected["report_data"]
    assert body["ATTRIBUTES.DEBUG"] is False
    chain = inspected(path("sgx/sgx-v3-phala.bin"))["PCK certificate chain"]
    assert (chain[0]["FMSPC"], chain[0]["PCESVN"]) == (expected["fmspc"], expected["pce_svn"])


def test_a_trust_domain_in_the_terms_of_its_manual() -> None:
    expected = one("tdx/tdx-v4-phala.bin").expected
    body = inspected(path("tdx/tdx-v4-phala.bin"))["body"]
    for index in range(4):
        assert body[f"RTMR{index}"] == expected[f"rtmr{index}"]
    assert body["MRTD"] == expected["mrtd"]
    assert body["TDATTRIBUTES.SEPT_VE_DISABLE"] is True
    assert len(body["measurement"]) == 96


def test_a_report_in_the_terms_of_its_manual() -> None:
    document = inspected(path("snp/turin-v5-msft.bin"))
    assert document["REPORTED_TCB"] == {"FMC": 1, "BOOT_LOADER": 1, "TEE": 1, "SNP": 4, "MICROCODE": 81}
    assert document["CURRENT_MAJOR.MINOR.BUILD"].count(".") == 2
    milan = inspected(path("snp/milan-v2-trustee.bin"))
    assert isinstance(milan["REPORTED_TCB"], str)  # version 2 does not say of which product it is
    assert "LAUNCH_MIT_VECTOR" not in milan


def test_a_nitro_document_has_its_registers_and_chain() -> None:
    document = inspected(path("nitro/nitro-2025-dstack-nsm.cbor"))
    assert [name for name in document if name.startswith("PCR")] == [f"PCR{index}" for index in range(16)]
    assert document["cabundle"][0]["subject"] == "CN=aws.nitro-enclaves,OU=AWS,O=Amazon,C=US"


def azure(hcl_report: str, td_quote: str | None = None) -> bytes:
    return evidence.encode(
        AzureEvidence(
            1,
            read("tpm/keylime-quote.out"),
            b"",
            {"sha256": {"7": "07" * 32, "10": "0a" * 32}},
            read(hcl_report),
            None if td_quote is None else read(td_quote),
            read("tpm/tcg-eventlog-openpcc.bin"),
        )
    )


def test_evidence_of_azure_vms(tmp_path: Path) -> None:
    file = tmp_path / "azure.json"
    file.write_bytes(azure("az-snp-vtpm/trustee-hcl-report-milan-v2.bin"))
    document = inspected(file)
    assert document["type"] == "azure-snp"
    assert document["HCL report"]["hardware report"]["VMPL"] == 0
    assert list(document["PCRs"]) == ["PCR7 (sha256)", "PCR10 (sha256)"]
    assert len(document["measurement"]) == 64
    assert len(document["event log"]["events"]) > 10
    file.write_bytes(azure("az-tdx-vtpm/trustee-hcl-report.bin", "az-tdx-vtpm/trustee-td-quote.bin"))
    document = inspected(file)
    assert document["type"] == "azure-tdx"
    assert len(document["TD quote"]["body"]["MRTD"]) == 96
    assert len(document["measurement"]) == 64
    file.write_bytes(azure("az-tdx-vtpm/trustee-hcl-report.bin"))
    assert "measurement" not in inspected(file)  # a TDREPORT alone proves none


def test_evidence_of_a_tpm(tmp_path: Path) -> None:
    file = tmp_path / "tpm.json"
    log = read("tpm/tcg-eventlog-openpcc.bin")
    for event_log in (None, log):
        file.write_bytes(
            evidence.encode(
                TpmEvidence(1, read("tpm/keylime-quote.out"), b"", {"sha256": {"0": "00" * 32}}, event_log)
            )
        )
        document = inspected(file)
        assert document["type"] == "tpm"
        assert document["PCRs"] == {"PCR0 (sha256)": "00" * 32}
        assert ("event log" in document) == (event_log is not None)


def test_a_json_event_log(tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    entry = {"imr": 3, "event_type": 1, "digest": "ab" * 48, "event": "app", "event_payload": "cd"}
    file.write_text(json.dumps([entry]))
    (event,) = inspected(file)["events"]
    assert event == {"register": 3, "event type": "0x1", "digests": {"sha384": "ab" * 48}, "event": "cd"}


def test_a_bundle_with_its_endorsements_and_statement(tmp_path: Path) -> None:
    plain = server.bundle()
    file = tmp_path / "bundle.json"
    bundle = Bundle(
        plain.statement,
        plain.evidence_type,
        plain.evidence,
        (
            (CERTIFICATE_CHAIN, read("snp/chain-milan.pem")),
            (DCAP_COLLATERAL, b"{}"),
            ("application/unknown", b"?"),
        ),
    )
    file.write_bytes(bundle.encode())
    document = inspected(file)
    assert inspected("--bundle", file) == document
    assert document["evidence"]["measurement"] == server.MEASUREMENT.hex()
    chain, collateral, unknown = document["endorsements"]
    assert chain["certificates"][1]["subject"].startswith("CN=ARK-Milan")
    assert "cannot be read" in collateral["unreadable"]
    assert "unknown" in unknown["unreadable"]
    assert document["statement"]["deployment"] == "production"
    assert document["statement"]["models"][0]["inputs"][0]["datatype"] == "FP32"


def test_a_bundle_of_hardware_evidence(tmp_path: Path) -> None:
    file = tmp_path / "bundle.json"
    quote = Bundle(b"{}", "application/vnd.confonnx.sgx-quote", intel.SGX.encode())
    file.write_bytes(quote.encode())
    document = inspected(file)
    assert document["evidence"]["body"]["MRENCLAVE"] == intel.MRENCLAVE.hex()
    assert "unreadable" in document["statement"]


def test_the_outline_says_that_nothing_is_verified(tmp_path: Path) -> None:
    run = confonnx("inspect", path("sgx/sgx-v3-phala.bin"))
    assert run.status == 0
    lines = run.out.splitlines()
    assert lines[0].startswith("NOT VERIFIED")
    expected = one("sgx/sgx-v3-phala.bin").expected
    assert f"  MRENCLAVE: {expected['mrenclave']}" in lines
    assert f"  REPORTDATA: {expected['report_data']}" in lines  # whole: a person compares it
    assert "PCK certificate chain[0]:" in lines


def test_a_servers_answer_is_shown_and_saved(tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    answer = Page(server.bundle().encode(), fields={"content-type": MEDIA_TYPE})
    with fake_vendors() as host:
        host.otherwise = answer
        document = inspected("--url", host.url, "--save", copy)
    assert copy.read_bytes() == server.bundle().encode()
    assert inspected(copy) == document


def test_no_control_character_reaches_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "document"
    file.write_bytes(aws.Document({"module_id": "enclave\x1b[2J\x07"}, tagged=True).encode())
    run = confonnx("inspect", file)
    assert run.status == 0, run.err
    assert "\x1b" not in run.out
    assert "\x07" not in run.out
    assert "module_id: enclave\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}" in run.out


def test_der_and_pem_are_the_same_endorsement(tmp_path: Path) -> None:
    crl = x509.load_pem_x509_crl(read("snp/crl-milan.pem"))
    der = tmp_path / "crl.der"
    der.write_bytes(crl.public_bytes(Encoding.DER))
    assert inspected(der) == inspected(path("snp/crl-milan.pem"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        b"{}",
        b"[" * 10_000,
        b"1",
        b'"text"',
        bytes(1183),
        b"\xff" * 1184,
        b"\0",
    ],
)
def test_what_is_nothing_known(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    run = confonnx("inspect", file)
    assert (run.status, run.out) == (2, "")
    assert "neither evidence nor endorsements" in run.err


@pytest.mark.parametrize(
    "content",
    [
        b"\x30\x03abc",
        b"-----BEGIN CERTIFICATE-----\ngarbage\n-----END CERTIFICATE-----\n",
        b"-----BEGIN X509 CRL-----\ngarbage\n-----END X509 CRL-----\n",
        b"HCLA",
        b"\xffTCG",
        b"\x84",
        b'{"tcb_info":1,"qe_identity":2}',
        b'{"hcl_report":""}',
        b'{"message":"","signature":"","pcrs":{}}',
        b'{"body":"","root":"","signature":""}',
        b'{"__cmwc_t":1}',
        b"[1]",
    ],
)
def test_what_is_of_a_known_kind_and_damaged(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    run = confonnx("inspect", file)
    assert run.status in (1, 2, 3)
    assert run.out == ""
    assert run.err.startswith("error: ")


def test_every_prefix_of_evidence_is_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "cut"
    for name in ("sgx/sgx-v3-phala.bin", "snp/turin-v5-msft.bin", "tpm/keylime-quote.out"):
        whole = read(name)
        for end in range(0, len(whole), max(len(whole) // 25, 1)):
            file.write_bytes(whole[:end])
            run = confonnx("inspect", file)
            assert run.status in (2, 3), (name, end)


def test_sources_that_do_not_go_together(tmp_path: Path) -> None:
    file = tmp_path / "bundle.json"
    file.write_bytes(server.bundle().encode())
    for words, text in (
        ((), "exactly one of --url, FILE, --bundle"),
        ((file, "--bundle", file), "exactly one of"),
        ((file, "--save", tmp_path / "copy"), "--save goes with --url"),
        ((tmp_path / "missing",), "cannot read"),
        (("--url", "http://localhost:1/", file), "exactly one of"),
    ):
        run = confonnx("inspect", *words)
        assert (run.status, run.out) == (2, ""), words
        assert text in run.err
