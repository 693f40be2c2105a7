"""docs/spec/vectors/attestation.json is what the code makes, and what it takes back.

To write it anew after a change of the format: ``python -m tests.docs.test_docs_attestation_vectors``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from confonnx.attestation.bundle import parse_bundle
from confonnx.attestation.statement import parse_statement, report_data
from confonnx.attestation.verify import simulated
from confonnx.attestation.verify.appraise import appraise
from tests.support import simulated_server as server

FILE = Path(__file__).resolve().parents[2] / "docs/spec/vectors/attestation.json"


def made() -> dict[str, str]:
    """Everything from one fixed group secret, nonce and time."""
    bundle = server.bundle()
    return {
        "nonce": server.NONCE.hex(),
        "now": server.NOW.isoformat().replace("+00:00", "Z"),
        "statement": bundle.statement.decode("utf-8"),
        "report_data": report_data(bundle.statement).hex(),
        "evidence_type": bundle.evidence_type,
        "evidence": bundle.evidence.decode("utf-8"),
        "bundle": bundle.encode().decode("utf-8"),
    }


def published() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return document


def test_the_vectors_are_what_the_code_makes() -> None:
    assert published() == made()


def test_the_report_data_by_hand() -> None:
    vectors = published()
    hashed = hashlib.sha512(b"confonnx attestation v1\0" + vectors["statement"].encode()).hexdigest()
    assert hashed == vectors["report_data"]


def test_the_vectors_are_accepted() -> None:
    vectors = published()
    bundle = parse_bundle(vectors["bundle"].encode())
    assert parse_statement(bundle.statement).encode().decode() == vectors["statement"]
    assert simulated.verify(bundle.evidence).report_data.hex() == vectors["report_data"]
    keys = appraise(bundle, server.policy(), nonce=bytes.fromhex(vectors["nonce"]), now=server.NOW)
    assert keys.models == (server.model(),)


if __name__ == "__main__":
    FILE.write_text(json.dumps(made(), indent=2, ensure_ascii=False) + "\n", "utf-8")
