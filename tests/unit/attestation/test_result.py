"""Attested keys: made by the appraiser alone, and sealing to the right key at every instant."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from datetime import timedelta

import pytest

from confonnx.attestation.policy import DangerousAnyModel, Freshness
from confonnx.attestation.result import AttestedKeys
from confonnx.attestation.verify.appraise import appraise
from confonnx.errors import AttestationExpiredError, ConfigurationError, ModelNotFoundError
from confonnx.ohttp.encapsulation import open_request
from confonnx.ohttp.kem import Kem
from tests.support.simulated_server import LIFETIME, NONCE, NOW, bundle, model, policy, ring, statement

_LONG = replace(policy(), freshness=Freshness(max_verification_age=timedelta(days=9)))
_SECOND = timedelta(seconds=1)


def _keys() -> AttestedKeys:
    return appraise(bundle(), _LONG, nonce=NONCE, now=NOW)


def _with_models(*models: object, refused: bool = False) -> AttestedKeys:
    accepted = _LONG if refused else replace(_LONG, models=DangerousAnyModel())
    of = replace(statement(), models=tuple(models))  # type: ignore[arg-type]
    return appraise(bundle(of), accepted, nonce=NONCE, now=NOW)


def test_nobody_else_makes_them() -> None:
    keys = _keys()
    fields = {name: getattr(keys, name) for name in AttestedKeys.__slots__}
    with pytest.raises(TypeError, match="appraise alone"):
        AttestedKeys(**fields, appraiser=object())
    with pytest.raises(TypeError):
        AttestedKeys(**fields)
    with pytest.raises((TypeError, ValueError)):
        replace(keys, valid_until=NOW + timedelta(days=999))  # type: ignore[call-arg]
    for steal in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be copied or stored"):
            steal(keys)
    with pytest.raises(AttributeError):
        keys.valid_until = NOW  # type: ignore[misc]


def test_what_is_sealed_opens_with_the_ring_of_the_statement() -> None:
    keys = _keys()
    message, opener = keys.encapsulate([b"par", b"ts"], now=NOW)
    opened = open_request(ring(), message)
    assert bytes(opened.plaintext).rstrip(b"\0") == b"parts"
    assert bytes(opener.open(opened.sealer.seal([b"answer"]))).rstrip(b"\0") == b"answer"


def test_padding_is_the_callers_choice() -> None:
    keys = _keys()
    padded, _ = keys.encapsulate([b"x" * 999], now=NOW)
    plain, _ = keys.encapsulate([b"x" * 999], now=NOW, pad=False)
    assert len(padded) > len(plain)


@pytest.mark.parametrize(
    ("at", "epoch"),
    [
        (timedelta(0), 7),
        (LIFETIME - _SECOND, 7),
        (LIFETIME, 8),
        (2 * LIFETIME - _SECOND, 8),
        (-timedelta(minutes=5), 7),
    ],
)
def test_the_earliest_epoch_that_has_not_ended_is_used(at: timedelta, epoch: int) -> None:
    keys = _keys()
    assert keys.key_at(NOW + at).epoch == epoch


def test_a_long_lived_client_passes_the_rollover_without_a_stall() -> None:
    keys, server = _keys(), ring()
    for minutes in range(0, 2 * 24 * 60, 7):
        now = NOW + timedelta(minutes=minutes)
        server.advance(now)
        message, _ = keys.encapsulate([b"x"], now=now, kem=Kem.X25519)
        assert bytes(open_request(server, message).plaintext[:1]) == b"x"


@pytest.mark.parametrize("at", [2 * LIFETIME, timedelta(days=30), -timedelta(minutes=5, seconds=1)])
def test_outside_its_time_nothing_is_sealed(at: timedelta) -> None:
    with pytest.raises(AttestationExpiredError, match="verify the server again"):
        _keys().encapsulate([b"x"], now=NOW + at)


def test_a_key_is_not_used_longer_than_its_verification_even_where_it_still_lives() -> None:
    brief = replace(policy(), freshness=Freshness(max_verification_age=timedelta(hours=1)))
    keys = appraise(bundle(), brief, nonce=NONCE, now=NOW + timedelta(hours=2))
    assert keys.key_at(NOW + timedelta(hours=3) - _SECOND).epoch == 7
    assert keys.key_at(NOW + timedelta(hours=2) - timedelta(minutes=5)).epoch == 7
    for late_or_early in (timedelta(hours=3), timedelta(hours=2) - timedelta(minutes=5, seconds=1)):
        with pytest.raises(AttestationExpiredError, match="the verification holds from"):
            keys.key_at(NOW + late_or_early)


def test_a_gap_between_keys_seals_nothing() -> None:
    bounded = replace(
        _LONG, freshness=Freshness(max_verification_age=timedelta(days=9), max_key_age=LIFETIME / 2)
    )
    keys = appraise(bundle(), bounded, nonce=NONCE, now=NOW)
    assert keys.key_at(NOW + LIFETIME / 2 - _SECOND).epoch == 7
    with pytest.raises(AttestationExpiredError, match="no attested key is valid"):
        keys.key_at(NOW + LIFETIME / 2)
    assert keys.key_at(NOW + LIFETIME).epoch == 8


def test_the_hybrid_kem_is_preferred_and_another_can_be_asked_for() -> None:
    keys = _keys()
    assert keys.key_at(NOW).config.kem is Kem.MLKEM768_X25519
    assert keys.key_at(NOW, kem=Kem.X25519).config.kem is Kem.X25519

    classic = tuple(key for key in statement().keys if key.config.kem is Kem.X25519)
    only = appraise(bundle(replace(statement(), keys=classic)), _LONG, nonce=NONCE, now=NOW)
    assert only.key_at(NOW).config.kem is Kem.X25519
    with pytest.raises(ConfigurationError, match="no key for MLKEM768_X25519, it has X25519"):
        only.key_at(NOW, kem=Kem.MLKEM768_X25519)


def test_the_only_model_and_its_highest_version_are_found_without_a_name() -> None:
    keys = _with_models(model(version="9"), model(version="10"), model(version="best"))
    assert keys.select_model().version == "10"
    assert keys.select_model("digits").version == "10"
    assert keys.select_model(version="9").version == "9"
    assert _with_models(model(version="a"), model(version="b")).select_model().version == "b"


def test_several_models_must_be_named() -> None:
    keys = _with_models(model("b"), model("a"))
    assert keys.select_model("a").name == "a"
    with pytest.raises(ModelNotFoundError, match="several models, name one of a, b"):
        keys.select_model()


def test_a_model_that_is_not_there_or_not_accepted_is_not_found() -> None:
    keys = _with_models(model(), model("other", digest="00" * 32), refused=True)
    assert keys.select_model() == model()
    with pytest.raises(
        ModelNotFoundError, match="does not accept its digest; accepted are: digits version 1"
    ):
        keys.select_model("other")
    with pytest.raises(
        ModelNotFoundError, match=r"^no model 'digits' version '2'; accepted are: digits version 1$"
    ):
        keys.select_model("digits", "2")
    with pytest.raises(ModelNotFoundError, match="no model version '7'"):
        keys.select_model(version="7")
