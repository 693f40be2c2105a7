"""Strict JSON: what is refused, and that a value has one text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from confonnx.attestation import canonical_json
from confonnx.errors import BundleError


def test_writes_names_sorted_without_space_and_text_unescaped() -> None:
    assert (
        canonical_json.encode({"b": [1, True, None], "a": 'é"\\'})
        == '{"a":"é\\"\\\\","b":[1,true,null]}'.encode()
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not the JSON"),
        (b"{}x", "not the JSON"),
        (b"\xff", "not UTF-8: byte 0"),
        (b"\xef\xbb\xbf{}", "not the JSON"),
        (b'{"a":1,"a":2}', "'a' occurs twice"),
        (b'{"b":{"a":1,"a":1}}', "'a' occurs twice"),
        (b"1.0", "1.0 is not an integer"),
        (b"1e3", "1e3 is not an integer"),
        (b"NaN", "NaN is not an integer"),
        (b"-Infinity", "is not an integer"),
        (b"9007199254740992", "beyond"),
        (b"-9007199254740992", "beyond"),
        (b"1" * 5000, "beyond"),
        (b"[" * 100_000, "nests deeper"),
        (b"[" * 20 + b"]" * 20, "nests deeper"),
        ('{"é":1}'.encode(), "not ASCII"),
    ],
)
def test_refuses_what_parsers_disagree_about(data: bytes, reason: str) -> None:
    with pytest.raises(BundleError, match=reason) as raised:
        canonical_json.parse(data, what="the text")
    assert "the text" in str(raised.value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (1.5, "not an integer"),
        (2**53, "not an integer"),
        ("\ud800", "lone surrogate"),
        ({"é": 1}, "not ASCII"),
        ([[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]], "nests deeper"),
    ],
)
def test_writes_nothing_that_has_no_canonical_form(value: canonical_json.Json, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        canonical_json.encode(value)


def test_the_largest_integers_pass() -> None:
    data = canonical_json.encode([2**53 - 1, -(2**53) + 1])
    assert canonical_json.parse(data, what="x") == [2**53 - 1, -(2**53) + 1]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "a boolean"),
        (1, "a number"),
        ("a", "a string"),
        ({}, "an object"),
        ([], "an array"),
    ],
)
def test_a_wrong_kind_is_named(value: canonical_json.Json, kind: str) -> None:
    takers: dict[str, Callable[[canonical_json.Json, str], object]] = {
        "an object": canonical_json.as_object,
        "an array": canonical_json.as_array,
        "a string": canonical_json.as_string,
        "a number": canonical_json.as_integer,
        "a boolean": canonical_json.as_boolean,
    }
    for taken, take in takers.items():
        if taken != kind:
            with pytest.raises(BundleError, match=f"field: expected .*, found {kind}"):
                take(value, "field")


def test_the_right_kinds_pass() -> None:
    assert canonical_json.as_object({"a": 1}, "x") == {"a": 1}
    assert canonical_json.as_array([1], "x") == [1]
    assert canonical_json.as_string("a", "x") == "a"
    assert canonical_json.as_boolean(False, "x") is False
    assert canonical_json.as_integer(3, "x", minimum=3) == 3
    with pytest.raises(BundleError, match="expected at least 4, found 3"):
        canonical_json.as_integer(3, "x", minimum=4)


def test_missing_and_unknown_members_are_named() -> None:
    canonical_json.check_names({"a": 1}, frozenset("a"), "the object")
    with pytest.raises(BundleError, match="the object lacks 'b'"):
        canonical_json.check_names({"a": 1}, frozenset("ab"), "the object")
    with pytest.raises(BundleError, match="unknown members: 'c'"):
        canonical_json.check_names({"a": 1, "c": 1}, frozenset("a"), "the object")
