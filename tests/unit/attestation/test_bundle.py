"""The bundle: an RFC 9999 collection, with limits before decoding."""

from __future__ import annotations

import json
from typing import Any

import pytest

from confonnx.attestation.bundle import COLLECTION_TYPE, Bundle, BundleLimits, parse_bundle
from confonnx.errors import BundleError
from tests.support.simulated_server import bundle


def _with_endorsements() -> Bundle:
    plain = bundle()
    return Bundle(
        plain.statement, plain.evidence_type, plain.evidence, (("a/b", b"one"), ("a/b", b""), ("c/d", b"3"))
    )


def test_a_bundle_returns_from_its_bytes() -> None:
    for value in (bundle(), _with_endorsements()):
        assert parse_bundle(value.encode()) == value


def test_the_shape_is_a_cmw_collection() -> None:
    members = json.loads(_with_endorsements().encode())
    assert members["__cmwc_t"] == COLLECTION_TYPE
    assert members["statement"][0] == "application/vnd.confonnx.statement+json"
    assert len(members["statement"]) == 2
    assert members["evidence"][2] == 4
    assert members["endorsements.0"] == ["a/b", "b25l", 2]
    assert set(members) == {"__cmwc_t", "statement", "evidence", *(f"endorsements.{n}" for n in range(3))}


def test_white_space_and_order_are_free_as_in_any_cmw() -> None:
    members = json.loads(_with_endorsements().encode())
    assert parse_bundle(json.dumps(members, indent=2).encode()) == _with_endorsements()


_ABSENT = object()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("__cmwc_t", _ABSENT, "no confonnx attestation"),
        ("__cmwc_t", "urn:uuid:0", "no confonnx attestation"),
        ("__cmwc_t", 1, "no confonnx attestation"),
        ("statement", _ABSENT, "lacks 'statement'"),
        ("evidence", _ABSENT, "lacks 'evidence'"),
        ("more", ["a/b", "", 2], "unknown members: 'more'"),
        ("endorsements.4", ["a/b", "", 2], "lacks 'endorsements.3'"),
        ("endorsements.x", ["a/b", "", 2], "lacks 'endorsements.3'"),
        ("endorsements.01", ["a/b", "", 2], "lacks 'endorsements.3'"),
        ("endorsements.1", _ABSENT, "lacks 'endorsements.1'"),
        ("statement", "text", "statement: expected an array"),
        ("statement", ["application/vnd.confonnx.statement+json", "", 4], "of 2 elements, found 3"),
        ("statement", ["application/json", ""], "expected media type .*found 'application/json'"),
        ("evidence", ["a/b", ""], "of 3 elements, found 2"),
        ("evidence", ["a/b", "", 2], "evidence: expected the CMW indicator 4, found 2"),
        ("evidence", ["a/b", "", "4"], "expected an integer"),
        ("evidence", ["", "", 4], "media type of 1 to 255"),
        ("evidence", ["a" * 256, "", 4], "media type of 1 to 255"),
        ("evidence", ["a/b\n", "", 4], "printable"),
        ("evidence", ["a/ü", "", 4], "ASCII"),
        ("evidence", [5, "", 4], "media type: expected a string"),
        ("evidence", ["a/b", 5, 4], "value: expected a string"),
        ("evidence", ["a/b", "Y+", 4], "evidence has characters outside base64url"),
        ("endorsements.0", ["a/b", "", 4], "endorsements.0: expected the CMW indicator 2, found 4"),
    ],
)
def test_one_changed_member_is_refused_by_name(name: str, value: Any, reason: str) -> None:
    members = json.loads(_with_endorsements().encode())
    if value is _ABSENT:
        del members[name]
    else:
        members[name] = value
    with pytest.raises(BundleError, match=reason):
        parse_bundle(json.dumps(members, ensure_ascii=False).encode())


def test_duplicate_members_are_refused() -> None:
    data = bundle().encode()
    with pytest.raises(BundleError, match="'statement' occurs twice"):
        parse_bundle(data[:-1] + b',"statement":["x","y"]}')


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"<html>", b"\x00" * 10])
def test_what_is_no_bundle_at_all(data: bytes) -> None:
    with pytest.raises(BundleError, match="the bundle"):
        parse_bundle(data)


def test_each_limit_holds_exactly() -> None:
    value = Bundle(b"s" * 10, "a/b", b"e" * 11, (("c/d", b"x" * 12), ("c/d", b"")))
    data = value.encode()
    exact = {
        "max_bundle_bytes": len(data),
        "max_statement_bytes": 10,
        "max_evidence_bytes": 11,
        "max_endorsement_bytes": 12,
        "max_endorsements": 2,
    }
    assert parse_bundle(data, limits=BundleLimits(**exact)) == value
    for name, limit in exact.items():
        with pytest.raises(BundleError, match=f"the limit is {limit - 1}"):
            parse_bundle(data, limits=BundleLimits(**(exact | {name: limit - 1})))
