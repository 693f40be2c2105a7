"""The statement: one spelling, and every member checked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from confonnx.attestation import canonical_json
from confonnx.attestation.statement import StatementLimits, parse_statement, report_data
from confonnx.errors import BundleError
from tests.support.simulated_server import NOW, model, statement


def test_a_statement_returns_from_its_bytes() -> None:
    value = statement()
    assert parse_statement(value.encode()) == value
    bare = replace(value, nonce=None, models=(), authentication=(), deployment="")
    assert parse_statement(bare.encode()) == bare


def test_the_bytes_are_canonical_json() -> None:
    data = statement().encode()
    members = json.loads(data)
    assert data == json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    assert members["issued_at"] == "2026-11-24T08:00:00Z"
    assert members["nonce"] == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert members["limits"]["replay_window_seconds"] == 120
    assert members["version"] == 1


def test_report_data_is_the_labelled_hash_of_the_exact_bytes() -> None:
    expected = hashlib.sha512(b"confonnx attestation v1\x00" + b"{}").digest()
    assert report_data(b"{}") == expected
    assert len(expected) == 64


def test_fractions_of_a_second_are_dropped() -> None:
    value = replace(statement(), issued_at=NOW + timedelta(microseconds=999_999))
    assert parse_statement(value.encode()).issued_at == NOW


def _changed(change: dict[str, Any]) -> bytes:
    members = json.loads(statement().encode())
    for path, value in change.items():
        *parents, last = path.split(".")
        target: Any = members
        for parent in parents:
            target = target[int(parent)] if parent.isdigit() else target[parent]
        if value is _ABSENT:
            del target[last]
        elif isinstance(target, list):
            target[int(last)] = value
        else:
            target[last] = value
    return canonical_json.encode(members)


_ABSENT = object()
_KEY = json.loads(statement().encode())["keys"][0]
_MODEL = json.loads(statement().encode())["models"][0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "has version 2, expected 1.*upgrade"),
        ({"version": "1"}, "version '1'"),
        ({"version": _ABSENT}, "version None"),
        ({"extra": 1}, "unknown members: 'extra'"),
        ({"nonce": _ABSENT}, "lacks 'nonce'"),
        ({"nonce": "AA"}, "nonce: expected 16 to 64 bytes, found 1"),
        ({"nonce": "A" * 87}, "nonce: expected 16 to 64 bytes, found 65"),
        ({"nonce": "AA=="}, "nonce has characters outside base64url"),
        ({"nonce": 5}, "nonce: expected a string"),
        ({"issued_at": "2026-11-24T08:00:00+00:00"}, "issued_at: expected an instant like"),
        ({"issued_at": "2026-11-24T08:00:00.5Z"}, "issued_at: expected an instant like"),
        ({"issued_at": "2026-02-30T08:00:00Z"}, "is no date"),
        ({"issued_at": "2026-11-24T08:00:60Z"}, "no date|canonical"),
        ({"issued_at": "٢٠٢٦-11-24T08:00:00Z"}, "issued_at: expected an instant like"),
        ({"keys": []}, "keys: expected 1 to 16 entries, found 0"),
        ({"keys": [_KEY] * 17}, "keys: expected 1 to 16 entries, found 17"),
        ({"keys": [_KEY, _KEY]}, "key identifier .* occurs twice"),
        ({"keys": {}}, "keys: expected an array"),
        ({"keys.0": 3}, r"keys\[0\]: expected an object"),
        ({"keys.0.config": "AA"}, r"keys\[0\].config"),
        ({"keys.0.epoch": -1}, r"keys\[0\].epoch: expected at least 0"),
        ({"keys.0.epoch": True}, r"keys\[0\].epoch: expected an integer, found a boolean"),
        ({"keys.0.not_after": _KEY["not_before"]}, "is not before not_after"),
        ({"keys.0.more": 1}, r"keys\[0\] has unknown members"),
        ({"models": [_MODEL, _MODEL]}, "models: digits version 1 occurs twice"),
        ({"models.0.digest": "C3" * 32}, "64 lower-case hex digits"),
        ({"models.0.digest": "c3" * 31}, "64 lower-case hex digits"),
        ({"models.0.name": ""}, r"models\[0\].name: expected 1 to 256 characters, found 0"),
        ({"models.0.name": "x" * 257}, "found 257"),
        ({"models.0.name": "a\nb"}, "cannot be printed"),
        ({"models.0.inputs": [{"name": "x"}]}, r"models\[0\].inputs"),
        ({"models.0.inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "odd": 1}]}, "canonical"),
        ({"deployment": "x" * 257}, "deployment: expected 0 to 256"),
        ({"server_version": ""}, "server_version: expected 1 to 256"),
        ({"authentication": ["digest"]}, "'digest' is none of basic, bearer"),
        ({"authentication": ["bearer", "bearer"]}, "bearer occurs twice"),
        ({"authentication": "bearer"}, "authentication: expected an array"),
        ({"limits.max_request_bytes": 0}, "limits.max_request_bytes: expected at least 1"),
        ({"limits.max_response_bytes": 0}, "limits.max_response_bytes: expected at least 1"),
        ({"limits.replay_window_seconds": 0}, "expected at least 1"),
        ({"limits.replay_window_seconds": 86401}, "more than a day"),
        ({"limits.more": 1}, "limits has unknown members"),
    ],
)
def test_one_changed_member_is_refused_by_name(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        parse_statement(_changed(change))


def test_the_helper_changes_nothing_by_itself() -> None:
    assert parse_statement(_changed({})) == statement()


@pytest.mark.parametrize(
    "spelling",
    [
        lambda data: data + b"\n",
        lambda data: data.replace(b'":', b'": '),
        lambda data: data.replace(b'"production"', b'"\\u0070roduction"'),
        lambda data: json.dumps(dict(reversed(json.loads(data).items())), separators=(",", ":")).encode(),
    ],
    ids=["newline", "space", "escape", "order"],
)
def test_another_spelling_of_the_same_value_is_refused(spelling: Any) -> None:
    data = spelling(statement().encode())
    assert json.loads(data) == json.loads(statement().encode())
    with pytest.raises(BundleError, match="not in canonical form"):
        parse_statement(data)


@pytest.mark.parametrize("size", [0, 1, 10, 100, -1])
def test_a_truncated_statement_is_refused(size: int) -> None:
    with pytest.raises(BundleError):
        parse_statement(statement().encode()[:size])


@pytest.mark.parametrize(
    "wrong",
    [
        replace(statement(), issued_at=datetime(2026, 1, 1)),  # noqa: DTZ001
        replace(statement(), issued_at=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
        replace(statement(), nonce=b"short"),
        replace(statement(), keys=()),
        replace(statement(), models=(model(digest="zz"),)),
        replace(statement(), limits=StatementLimits(1, 1, timedelta(milliseconds=5))),
    ],
)
def test_nothing_is_encoded_that_would_not_parse(wrong: Any) -> None:
    with pytest.raises(BundleError):
        wrong.encode()


def test_another_name_for_utc_is_utc() -> None:
    value = replace(statement(), issued_at=NOW.astimezone(timezone(timedelta(0), "GMT")))
    assert parse_statement(value.encode()).issued_at == NOW.astimezone(UTC)
