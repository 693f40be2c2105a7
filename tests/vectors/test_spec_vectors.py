"""The code does what the vectors beside the specifications say."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest

from confonnx.attestation.bundle import parse_bundle
from confonnx.attestation.statement import parse_statement
from confonnx.attestation.verify.appraise import appraise
from tests.support import simulated_server, spec_vectors


@pytest.mark.parametrize(
    "name",
    ["wire-x25519.json", "wire-xwing.json", "session-x25519.json", "stream-x25519.json", "attestation.json"],
)
def test_the_vectors_are_what_the_code_makes(name: str) -> None:
    committed = json.loads((spec_vectors.DIRECTORY / name).read_text("utf-8"))
    assert spec_vectors.documents()[name] == committed


def test_no_vector_file_is_forgotten() -> None:
    assert {path.name for path in spec_vectors.DIRECTORY.iterdir()} == set(spec_vectors.documents())


def test_a_stream_by_hand() -> None:
    """The sealed messages open chunk by chunk, and the records in them are the vector's."""
    vector = json.loads((spec_vectors.DIRECTORY / "stream-x25519.json").read_text("utf-8"))
    chunks = [bytes.fromhex(chunk) for chunk in vector["request_chunks"]]
    assert chunks[0].startswith(b"\x02\x04POST")
    records = [bytes.fromhex(record) for record in vector["records"]]
    assert [chunk[1:] for chunk in chunks[1:]] == records  # each behind the length of its chunk of content
    assert [chunk[0] for chunk in chunks[1:]] == [len(record) for record in records]
    status, retry_after = struct.unpack(">HH", bytes.fromhex(vector["answers"][1])[:4])
    assert (status, retry_after) == (503, 2)
    assert {refused["error"] for refused in vector["refused"]} == {
        "protocol.encapsulation",
        "protocol.unknown-key",
    }


def test_the_report_data_by_hand() -> None:
    vector = json.loads((spec_vectors.DIRECTORY / "attestation.json").read_text("utf-8"))
    hashed = hashlib.sha512(b"confonnx attestation v1\0" + vector["statement"].encode()).hexdigest()
    assert hashed == vector["report_data"]


def test_the_attestation_vector_is_accepted() -> None:
    vector = json.loads((spec_vectors.DIRECTORY / "attestation.json").read_text("utf-8"))
    bundle = parse_bundle(vector["bundle"].encode("ascii"))
    keys = appraise(
        bundle,
        simulated_server.policy(),
        nonce=bytes.fromhex(vector["nonce"]),
        now=simulated_server.NOW,
    )
    assert keys.statement == parse_statement(vector["statement"].encode("ascii"))
    assert keys.claims.report_data.hex() == vector["report_data"]
