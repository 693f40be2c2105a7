"""Statement, bundle and policy return from their bytes, and a flipped byte never passes for the original."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from confonnx.attestation import base64url, canonical_json
from confonnx.attestation.bundle import Bundle, parse_bundle
from confonnx.attestation.claims import TcbStatus, Tee
from confonnx.attestation.policy import (
    ANY,
    DangerousAnyModel,
    DcapTcb,
    Freshness,
    Kind,
    Masked,
    Matcher,
    ModelDigests,
    OneOf,
    OneOfNumbers,
    OneOfTexts,
    Policy,
    describe,
    diff,
    fields_of,
    has_dcap_tcb,
    reference_values,
)
from confonnx.attestation.policy.matchers import AtLeast, AtLeastEach
from confonnx.attestation.policy.reference import ReferenceValues
from confonnx.attestation.statement import Statement, StatementLimits, parse_statement
from confonnx.attestation.verify.appraise import appraise
from confonnx.errors import BundleError, VerificationError
from tests.support.simulated_server import NONCE, NOW, bundle, model, policy, statement

_text = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20)
_instants = st.datetimes(datetime(1000, 1, 1), datetime(9998, 1, 1)).map(  # noqa: DTZ001
    lambda instant: instant.replace(microsecond=0, tzinfo=UTC)
)
_digests = st.binary(min_size=32, max_size=32).map(bytes.hex)

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def _statements(draw: st.DrawFn) -> Statement:
    names = draw(st.lists(_text, unique=True, max_size=3))
    return replace(
        statement(),
        issued_at=draw(_instants),
        nonce=draw(st.none() | st.binary(min_size=16, max_size=64)),
        models=tuple(model(name, draw(_text), draw(_digests)) for name in names),
        deployment=draw(st.just("") | _text),
        server_version=draw(_text),
        authentication=tuple(draw(st.lists(st.sampled_from(["basic", "bearer"]), unique=True))),
        limits=StatementLimits(
            draw(st.integers(1, 2**50)),
            draw(st.integers(1, 2**50)),
            timedelta(seconds=draw(st.integers(1, 86400))),
        ),
    )


def _matchers(kind: Kind, size: int) -> st.SearchStrategy[Matcher]:
    match kind:
        case Kind.DIGESTS:
            digests = st.lists(st.binary(min_size=size, max_size=size).filter(any), min_size=1, max_size=3)
            return digests.map(lambda values: OneOf(tuple(values)))
        case Kind.NUMBERS:
            numbers = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3)
            return numbers.map(lambda values: OneOfNumbers(tuple(values)))
        case Kind.TEXTS:
            texts = st.lists(_text.filter(bool), min_size=1, max_size=3)
            return texts.map(lambda values: OneOfTexts(tuple(values)))
        case Kind.MINIMUM:
            return st.integers(0, 2**31 - 1).map(AtLeast)
        case Kind.MINIMUM_EACH:
            return st.binary(min_size=size, max_size=size).map(AtLeastEach)
        case Kind.BITS:
            bits = st.tuples(st.integers(1, 2**64 - 1), st.integers(0, 2**64 - 1))
            return bits.map(lambda pair: Masked(mask=pair[0], value=pair[0] & pair[1]))


@st.composite
def _servers(draw: st.DrawFn) -> ReferenceValues:
    tee = draw(st.sampled_from(list(Tee)))
    fields = fields_of(tee)
    values: dict[str, Matcher] = {}
    for field in fields:
        if field is fields[0] or field.key == "root":
            values[field.key] = draw(_matchers(field.kind, field.size))
        elif draw(st.booleans()):
            values[field.key] = draw(st.just(ANY) | _matchers(field.kind, field.size))
    tcb = DcapTcb(
        statuses=(draw(st.sampled_from([TcbStatus.UP_TO_DATE, TcbStatus.CONFIGURATION_NEEDED])),),
        refused_advisories=tuple(draw(st.lists(_text, max_size=2))),
        min_tcb_evaluation_data_number=draw(st.integers(0, 99)),
    )
    label = draw(st.text(st.characters(codec="utf-8"), max_size=10))
    return reference_values(
        tee, values, label=label, allow_debug=draw(st.booleans()), tcb=tcb if has_dcap_tcb(tee) else None
    )


_seconds = st.integers(1, 2**31 - 1).map(lambda seconds: timedelta(seconds=seconds))
_policies = st.builds(
    Policy,
    accepted=st.lists(_servers(), min_size=1, max_size=3).map(tuple),
    models=st.just(DangerousAnyModel())
    | st.lists(_digests, min_size=1, max_size=3).map(lambda digests: ModelDigests(tuple(digests))),
    deployments=st.just(ANY) | st.lists(_text, min_size=1, max_size=3).map(tuple),
    freshness=st.builds(Freshness, _seconds, _seconds, _seconds, _seconds),
)


@given(_json)
def test_canonical_json_returns(value: canonical_json.Json) -> None:
    data = canonical_json.encode(value)
    assert canonical_json.parse(data, what="x") == value
    assert canonical_json.encode(canonical_json.parse(data, what="x")) == data


@given(st.binary(max_size=100))
def test_base64url_returns(data: bytes) -> None:
    assert base64url.decode(base64url.encode(data), what="x") == data


@given(st.text("ABab01-_", max_size=12))
def test_a_base64url_text_is_the_only_one_of_its_value(text: str) -> None:
    try:
        data = base64url.decode(text, what="x")
    except BundleError:
        return
    assert base64url.encode(data) == text


@settings(deadline=None)
@given(_statements())
def test_a_statement_returns(value: Statement) -> None:
    data = value.encode()
    assert parse_statement(data) == value
    assert parse_statement(data).encode() == data


@given(
    st.builds(
        Bundle,
        st.binary(max_size=50),
        _text.filter(str.isascii),
        st.binary(max_size=50),
        st.lists(st.tuples(st.just("a/b"), st.binary(max_size=20)), max_size=16).map(tuple),
    )
)
def test_a_bundle_returns(value: Bundle) -> None:
    assert parse_bundle(value.encode()) == value


@settings(deadline=None, max_examples=60)
@given(_policies, _policies)
def test_a_policy_returns_and_words_tell_policies_apart(value: Policy, other: Policy) -> None:
    text = value.to_toml()
    assert Policy.from_toml(text) == value
    assert Policy.from_toml(text).to_toml() == text
    assert diff(value, value) == []
    assert (diff(value, other) == []) is (sorted(describe(value)) == sorted(describe(other)))


_GOOD = bundle().encode()


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(_GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_of_a_bundle_is_accepted(position: int, flip: int) -> None:
    changed = bytearray(_GOOD)
    changed[position] ^= flip
    try:
        parsed = parse_bundle(bytes(changed))
        appraise(parsed, policy(), nonce=NONCE, now=NOW)
    except (BundleError, VerificationError):
        return
    # White space may differ in the outer collection; nothing that was signed or hashed may.
    assert parsed == bundle()
