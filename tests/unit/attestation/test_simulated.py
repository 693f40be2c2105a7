"""Simulated evidence, made and verified: one changed field, one error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from confonnx.attestation import base64url, canonical_json
from confonnx.attestation.attest.simulated import SimulatedAttester, measure_installation
from confonnx.attestation.claims import Claims, SimulatedClaims, TcbStatus, Tee
from confonnx.attestation.verify import simulated
from confonnx.errors import EvidenceError, EvidenceFormatError
from tests.support.simulated_server import MEASUREMENT, SIGNER, bundle, report

_EVIDENCE = bundle().evidence


def test_the_attester_binds_its_report_data() -> None:
    attester = SimulatedAttester(MEASUREMENT, SIGNER, debug=True, product_id=3, security_version=5)
    evidence, endorsements = attester.collect(bytes(range(64)))
    assert endorsements == ()
    assert attester.evidence_type == simulated.SIMULATED_EVIDENCE
    assert simulated.verify(evidence) == Claims(
        tee=attester.tee,
        measurement=MEASUREMENT,
        signer=SIGNER,
        debug=True,
        report_data=bytes(range(64)),
        security_version=5,
        product_id=3,
        tcb_status=TcbStatus.NOT_APPLICABLE,
        advisories=(),
        valid_until=None,
        details=SimulatedClaims(),
    )
    assert attester.tee is Tee.SIMULATED


def test_a_server_without_a_signer_says_so() -> None:
    evidence, _ = SimulatedAttester(MEASUREMENT).collect(bytes(64))
    assert simulated.verify(evidence).signer is None


def test_a_foreign_root_is_refused() -> None:
    key = Ed25519PrivateKey.generate()
    body = report(b"").encode()
    forged = canonical_json.encode(
        {
            "body": base64url.encode(body),
            "root": base64url.encode(key.public_key().public_bytes_raw()),
            "signature": base64url.encode(key.sign(b"confonnx simulated evidence v1\0" + body)),
        }
    )
    with pytest.raises(EvidenceError) as raised:
        simulated.verify(forged)
    assert raised.value.check == "simulated.root"


def test_each_bit_of_body_and_signature_is_signed() -> None:
    members = json.loads(_EVIDENCE)
    for member in ("body", "signature"):
        data = bytearray(base64url.decode(members[member], what=member))
        for position in (0, len(data) // 2, len(data) - 1):
            data[position] ^= 1
            changed = canonical_json.encode(members | {member: base64url.encode(bytes(data))})
            data[position] ^= 1
            with pytest.raises((EvidenceError, EvidenceFormatError)):
                simulated.verify(changed)


@pytest.mark.parametrize("signature", [b"", bytes(64), bytes(63), bytes(65)])
def test_a_wrong_signature_is_refused(signature: bytes) -> None:
    changed = canonical_json.encode(json.loads(_EVIDENCE) | {"signature": base64url.encode(signature)})
    with pytest.raises(EvidenceError) as raised:
        simulated.verify(changed)
    assert raised.value.check == "simulated.signature"


def test_a_body_exchanged_for_another_valid_one_is_refused() -> None:
    other = replace(report(b""), debug=True).encode()
    changed = canonical_json.encode(json.loads(_EVIDENCE) | {"body": base64url.encode(other)})
    with pytest.raises(EvidenceError) as raised:
        simulated.verify(changed)
    assert raised.value.check == "simulated.signature"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "version: expected 1, found 2"),
        ({"more": 1}, "unknown members: 'more'"),
        ({"measurement": "a1" * 31}, "measurement: expected 64 lower-case hex"),
        ({"measurement": "A1" * 32}, "measurement: expected 64 lower-case hex"),
        ({"measurement": None}, "measurement: expected a string"),
        ({"signer": "00"}, "signer: expected 64"),
        ({"debug": 0}, "debug: expected true or false"),
        ({"report_data": "00" * 32}, "report_data: expected 128"),
        ({"product_id": 65536}, "product_id: expected less than 65536"),
        ({"security_version": -1}, "security_version: expected at least 0"),
    ],
)
def test_a_wrong_body_is_refused_by_name(change: dict[str, Any], reason: str) -> None:
    body = canonical_json.encode(json.loads(report(b"").encode()) | change)
    evidence = canonical_json.encode(json.loads(_EVIDENCE) | {"body": base64url.encode(body)})
    with pytest.raises(EvidenceFormatError, match=reason):
        simulated.verify(evidence)


def test_other_spellings_are_refused() -> None:
    body = report(b"").encode()
    for changed_body in (body + b" ", body.replace(b":", b": ")):
        evidence = canonical_json.encode(json.loads(_EVIDENCE) | {"body": base64url.encode(changed_body)})
        with pytest.raises(EvidenceFormatError, match="the body is not in canonical form"):
            simulated.verify(evidence)
    with pytest.raises(EvidenceFormatError, match="the envelope is not in canonical form"):
        simulated.verify(_EVIDENCE + b"\n")


@pytest.mark.parametrize("evidence", [b"", b"{}", b"[]", b"\xff", b" " * 4097, _EVIDENCE[:-1]])
def test_what_is_no_evidence_is_refused(evidence: bytes) -> None:
    with pytest.raises(EvidenceFormatError, match="simulated evidence"):
        simulated.verify(evidence)


def test_the_measurement_follows_code_and_settings(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "sub" / "b.py").write_text("y = 1\n")
    first = measure_installation({"port": 1}, package=tmp_path)
    assert len(first) == 32

    (tmp_path / "a.pyc").write_bytes(b"compiled")
    (tmp_path / "notes.txt").write_text("no code")
    assert measure_installation({"port": 1}, package=tmp_path) == first
    assert measure_installation({"port": 2}, package=tmp_path) != first

    (tmp_path / "a.py").write_text("x = 2\n")
    changed = measure_installation({"port": 1}, package=tmp_path)
    assert changed != first
    (tmp_path / "a.py").rename(tmp_path / "c.py")
    assert measure_installation({"port": 1}, package=tmp_path) not in (first, changed)


def test_the_measurement_follows_the_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure_installation({}, package=tmp_path)
    monkeypatch.setattr("confonnx.attestation.attest.simulated.MEASURED_DISTRIBUTIONS", ("cryptography",))
    fewer = measure_installation({}, package=tmp_path)
    monkeypatch.setattr(
        "confonnx.attestation.attest.simulated.MEASURED_DISTRIBUTIONS",
        ("cryptography", "no-such-distribution"),
    )
    assert len({first, fewer, measure_installation({}, package=tmp_path)}) == 3


def test_the_installed_package_is_what_is_measured_by_default() -> None:
    package = Path(simulated.__file__).resolve().parents[2]
    assert (package / "errors.py").is_file()
    assert measure_installation({"a": 1}) == measure_installation({"a": 1}, package=package)
