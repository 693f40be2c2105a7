"""The door: a table of one-field changes with the step that catches each, and what an appraisal hands out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from confonnx.attestation.bundle import Bundle
from confonnx.attestation.claims import Claims, TcbStatus, Tee
from confonnx.attestation.policy import (
    ANY,
    AtLeast,
    DangerousAnyModel,
    DcapTcb,
    Freshness,
    Matcher,
    OneOf,
    OneOfNumbers,
    Policy,
    reference_values,
)
from confonnx.attestation.statement import AttestedKey, Statement, report_data
from confonnx.attestation.verify import appraise as door
from confonnx.attestation.verify import simulated
from confonnx.attestation.verify.appraise import STEP_IDS, Outcome, Step, appraise, appraise_evidence
from confonnx.attestation.verify.dispatch import (
    EVIDENCE_TYPES,
    checks_of,
    merge_endorsements,
    tee_of_evidence,
    verify_evidence,
)
from confonnx.errors import (
    BindingError,
    BundleError,
    CheckError,
    ConfonnxError,
    EvidenceError,
    EvidenceFormatError,
    PolicyError,
    VerificationError,
)
from tests.support.hardware_claims import SGX, claims
from tests.support.simulated_server import (
    LIFETIME,
    MEASUREMENT,
    NONCE,
    NOW,
    bundle,
    bundle_with,
    model,
    policy,
    ring,
    statement,
)


def _simulated_policy(values: dict[str, Matcher], *, allow_debug: bool = False) -> Policy:
    return replace(policy(), accepted=(reference_values(Tee.SIMULATED, values, allow_debug=allow_debug),))


def _key_of_epoch(offset: timedelta) -> Statement:
    """A statement whose keys all begin at ``NOW + offset``."""
    good = statement()
    moved = tuple(
        replace(key, not_before=NOW + offset, not_after=NOW + offset + LIFETIME) for key in good.keys
    )
    return replace(good, keys=moved)


GOOD = bundle()
OTHER = replace(statement(), deployment="staging").encode()
_SNP_ONLY = replace(policy(), accepted=(reference_values(Tee.SEV_SNP, {"measurement": OneOf((b"m" * 48,))}),))

# One change each to what `appraise` accepts: a bundle or policy, the check that catches it, the error.
MUTATIONS: dict[str, tuple[Bundle, Policy, str, type[ConfonnxError]]] = {
    "statement truncated": (
        replace(GOOD, statement=GOOD.statement[:-1]),
        policy(),
        "bundle.statement",
        BundleError,
    ),
    "statement respelled": (
        replace(GOOD, statement=GOOD.statement + b" "),
        policy(),
        "bundle.statement",
        BundleError,
    ),
    "evidence of an unknown type": (
        replace(GOOD, evidence_type="a/b"),
        policy(),
        "evidence.type",
        EvidenceFormatError,
    ),
    "evidence labelled as another TEE's": (
        replace(GOOD, evidence_type="application/vnd.confonnx.sev-snp-report"),
        policy(),
        "evidence.genuine",
        VerificationError,
    ),
    "evidence truncated": (
        replace(GOOD, evidence=GOOD.evidence[:-1]),
        policy(),
        "evidence.genuine",
        EvidenceFormatError,
    ),
    "evidence forged": (
        replace(GOOD, evidence=GOOD.evidence.replace(b'"signature":"', b'"signature":"AAAA')),
        policy(),
        "evidence.genuine",
        EvidenceError,
    ),
    "another statement": (replace(GOOD, statement=OTHER), policy(), "binding.report-data", BindingError),
    "another key under the same evidence": (
        replace(
            GOOD, statement=replace(statement(), keys=ring(secret=b"k" * 32).attested_keys(NOW)).encode()
        ),
        policy(),
        "binding.report-data",
        BindingError,
    ),
    "a later nonce under the same evidence": (
        replace(bundle(replace(statement(), nonce=bytes(32))), statement=GOOD.statement),
        policy(),
        "binding.report-data",
        BindingError,
    ),
    "no report data": (bundle_with(report_data=bytes(64)), policy(), "binding.report-data", BindingError),
    "another nonce": (bundle(replace(statement(), nonce=bytes(32))), policy(), "binding.nonce", BindingError),
    "a shorter nonce": (
        bundle(replace(statement(), nonce=NONCE[:16])),
        policy(),
        "binding.nonce",
        BindingError,
    ),
    "no nonce": (bundle(replace(statement(), nonce=None)), policy(), "binding.nonce", BindingError),
    "an old statement": (
        bundle(replace(statement(), issued_at=NOW - timedelta(hours=24, minutes=5, seconds=1))),
        policy(),
        "policy.freshness.age",
        PolicyError,
    ),
    "a statement from the future": (
        bundle(replace(statement(), issued_at=NOW + timedelta(minutes=5, seconds=1))),
        policy(),
        "policy.freshness.future",
        PolicyError,
    ),
    "keys that ended": (bundle(_key_of_epoch(-LIFETIME)), policy(), "policy.keys", PolicyError),
    "keys that have not begun": (
        bundle(_key_of_epoch(timedelta(minutes=5, seconds=1))),
        policy(),
        "policy.keys",
        PolicyError,
    ),
    "keys older than the policy allows": (
        bundle(_key_of_epoch(timedelta(hours=-2))),
        replace(policy(), freshness=Freshness(max_key_age=timedelta(hours=2))),
        "policy.keys",
        PolicyError,
    ),
    "a TEE that is not named": (GOOD, _SNP_ONLY, "policy.tee", PolicyError),
    "debug mode": (bundle_with(debug=True), policy(), "policy.debug", PolicyError),
    "another measurement": (
        bundle_with(measurement=bytes(32)),
        policy(),
        "policy.code.measurement",
        PolicyError,
    ),
    "another signer": (bundle_with(signer=bytes(32)), policy(), "policy.code.signer", PolicyError),
    "no signer": (bundle_with(signer=None), policy(), "policy.code.signer", PolicyError),
    "an old version of the code": (
        bundle_with(security_version=4),
        _simulated_policy({"measurement": OneOf((MEASUREMENT,)), "min_security_version": AtLeast(5)}),
        "policy.platform.security-version",
        PolicyError,
    ),
    "another product": (
        bundle_with(product_id=4),
        _simulated_policy({"measurement": OneOf((MEASUREMENT,)), "product_id": OneOfNumbers((3,))}),
        "policy.platform.product-id",
        PolicyError,
    ),
    "another model": (
        bundle(replace(statement(), models=(model(digest="00" * 32),))),
        policy(),
        "policy.models",
        PolicyError,
    ),
    "no model": (bundle(replace(statement(), models=())), policy(), "policy.models", PolicyError),
    "another deployment": (
        bundle(replace(statement(), deployment="staging")),
        policy(),
        "policy.deployment",
        PolicyError,
    ),
}


def test_the_good_bundle_passes_every_step() -> None:
    steps: list[Step] = []
    keys = appraise(GOOD, policy(), nonce=NONCE, now=NOW, trace=steps.append)
    assert [step.id for step in steps if not step.part_of] == list(STEP_IDS)
    assert {step.id for step in steps if step.outcome is not Outcome.PASS} == {"policy.tcb"}
    assert keys.statement == statement()
    assert keys.claims.measurement == MEASUREMENT
    assert keys.models == (model(),)
    assert keys.verified_at == NOW


@pytest.mark.parametrize("name", MUTATIONS)
def test_one_change_is_caught_by_its_step(name: str) -> None:
    changed, changed_policy, check, kind = MUTATIONS[name]
    steps: list[Step] = []
    with pytest.raises(ConfonnxError) as raised:
        appraise(changed, changed_policy, nonce=NONCE, now=NOW, trace=steps.append)
    assert isinstance(raised.value, kind)
    if isinstance(raised.value, PolicyError):
        assert [failure.code for failure in raised.value.failures] == [check]
    elif isinstance(raised.value, BindingError):
        assert raised.value.check == check

    assert [step.id for step in steps if not step.part_of] == list(STEP_IDS)
    (failed,) = [step for step in steps if step.outcome is Outcome.FAIL and not step.part_of]
    assert check == failed.id or check.startswith(f"{failed.id}.")
    assert failed.reason
    assert failed.remedy


def test_every_step_is_in_the_table_of_changes() -> None:
    caught = {check for _, _, check, _ in MUTATIONS.values()}
    untested = {
        step
        for step in STEP_IDS
        if not any(check == step or check.startswith(f"{step}.") for check in caught)
    }
    assert untested == {"policy.tcb"}  # simulated evidence has none: the next test


def test_an_outdated_platform_fails_its_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    outdated = claims(
        Tee.SGX,
        measurement=MEASUREMENT,
        report_data=report_data(GOOD.statement),
        tcb_status=TcbStatus.OUT_OF_DATE,
        advisories=("INTEL-SA-1",),
    )
    monkeypatch.setattr(door, "verify_evidence", lambda *_, **__: outdated)
    tcb = DcapTcb(refused_advisories=("INTEL-SA-1",))
    server = reference_values(Tee.SGX, {"mrenclave": OneOf((SGX.mrenclave,))}, tcb=tcb)
    steps: list[Step] = []
    with pytest.raises(PolicyError) as raised:
        appraise(GOOD, replace(policy(), accepted=(server,)), nonce=NONCE, now=NOW, trace=steps.append)
    codes = [failure.code for failure in raised.value.failures]
    assert codes == ["policy.tcb.status", "policy.tcb.advisories"]
    assert [step.id for step in steps if step.outcome is Outcome.FAIL] == ["policy.tcb"]
    assert Outcome.SKIP not in {step.outcome for step in steps if not step.part_of}


@pytest.mark.parametrize("tee", [tee for tee in Tee if tee is not Tee.SIMULATED])
def test_simulated_evidence_under_another_label_is_no_evidence(tee: Tee) -> None:
    (label,) = [name for name in EVIDENCE_TYPES if tee_of_evidence(name) is tee]
    steps: list[Step] = []
    with pytest.raises(VerificationError):
        appraise(replace(GOOD, evidence_type=label), policy(), nonce=NONCE, now=NOW, trace=steps.append)
    failed = [step.id for step in steps if step.outcome is Outcome.FAIL]
    assert len(failed) == 2
    assert failed[0] == "evidence.genuine"
    assert failed[1] in checks_of(tee)


def test_steps_after_a_fatal_one_are_skipped() -> None:
    steps: list[Step] = []
    with pytest.raises(BindingError):
        appraise(GOOD, policy(), nonce=bytes(32), now=NOW, trace=steps.append)
    at = [step.id for step in steps].index("binding.nonce")
    assert [step.outcome for step in steps[:at]] == [Outcome.PASS] * at
    assert {(step.outcome, step.reason) for step in steps[at + 1 :]} == {
        (Outcome.SKIP, "binding.nonce failed")
    }


def test_a_failed_verifier_names_its_own_check() -> None:
    forged, *_ = MUTATIONS["evidence forged"]
    with pytest.raises(CheckError) as raised:
        appraise(forged, policy(), nonce=NONCE, now=NOW)
    assert raised.value.check == "simulated.signature"


def test_the_trace_tells_the_checks_of_the_verifier() -> None:
    forged, *_ = MUTATIONS["evidence forged"]
    for changed, last in ((GOOD, Outcome.PASS), (forged, Outcome.FAIL)):
        steps: list[Step] = []
        with suppress(CheckError):
            appraise(changed, policy(), nonce=NONCE, now=NOW, trace=steps.append)
        assert [(step.id, step.outcome) for step in steps[2:6]] == [
            ("evidence.genuine", last),
            ("simulated.format", Outcome.PASS),
            ("simulated.root", Outcome.PASS),
            ("simulated.signature", last),
        ]
        assert [step.part_of for step in steps[1:7]] == ["", "", *["evidence.genuine"] * 3, ""]


def test_the_verifier_s_checks_after_a_failed_one_are_skipped() -> None:
    steps: list[Step] = []
    with pytest.raises(VerificationError):
        appraise(replace(GOOD, evidence=b"{}"), policy(), nonce=NONCE, now=NOW, trace=steps.append)
    parts = [(step.id, step.outcome, step.reason) for step in steps if step.part_of]
    assert parts[1:] == [
        ("simulated.root", Outcome.SKIP, "simulated.format failed"),
        ("simulated.signature", Outcome.SKIP, "simulated.format failed"),
    ]


def test_all_failures_of_the_policy_come_together() -> None:
    wrong = replace(statement(), models=(), deployment="staging", issued_at=NOW - timedelta(days=30))
    steps: list[Step] = []
    with pytest.raises(PolicyError) as raised:
        appraise(
            bundle(wrong),
            _simulated_policy({"measurement": OneOf((b"m" * 32,))}),
            nonce=NONCE,
            now=NOW,
            trace=steps.append,
        )
    codes = [failure.code for failure in raised.value.failures]
    assert codes == ["policy.freshness.age", "policy.code.measurement", "policy.models", "policy.deployment"]
    assert [step.id for step in steps if step.outcome is Outcome.FAIL] == [
        "policy.freshness",
        "policy.code",
        "policy.models",
        "policy.deployment",
    ]


def test_a_refused_tee_skips_what_the_policy_cannot_say() -> None:
    steps: list[Step] = []
    with pytest.raises(PolicyError, match="must be named"):
        appraise(GOOD, _SNP_ONLY, nonce=NONCE, now=NOW, trace=steps.append)
    skipped = {step.id for step in steps if step.outcome is Outcome.SKIP}
    assert skipped == {"policy.debug", "policy.tcb", "policy.code", "policy.platform"}


@pytest.mark.parametrize("nonce", [NONCE, None])
def test_without_a_nonce_of_ours_age_alone_bounds_the_statement(nonce: bytes | None) -> None:
    saved = bundle(replace(statement(), nonce=nonce))
    steps: list[Step] = []
    appraise(saved, policy(), nonce=None, now=NOW + timedelta(hours=1), trace=steps.append)
    assert [step.id for step in steps if step.outcome is Outcome.SKIP] == ["binding.nonce", "policy.tcb"]


def test_an_empty_nonce_is_not_no_nonce() -> None:
    with pytest.raises(BindingError):
        appraise(bundle(replace(statement(), nonce=None)), policy(), nonce=b"", now=NOW)


@pytest.mark.parametrize(
    ("issued", "now"),
    [(NOW, NOW + timedelta(hours=24)), (NOW + timedelta(minutes=5), NOW), (NOW, NOW)],
)
def test_the_bounds_of_age_are_inclusive(issued: datetime, now: datetime) -> None:
    age_only = replace(policy(), freshness=Freshness(max_clock_skew=timedelta(minutes=5)))
    appraise(bundle(replace(statement(), issued_at=issued)), age_only, nonce=NONCE, now=now)


def test_debug_mode_passes_when_it_was_allowed() -> None:
    allowed = _simulated_policy({"measurement": OneOf((MEASUREMENT,))}, allow_debug=True)
    assert appraise(bundle_with(debug=True), allowed, nonce=NONCE, now=NOW).claims.debug


def test_one_of_several_reference_values_is_enough() -> None:
    old = reference_values(Tee.SIMULATED, {"measurement": OneOf((b"o" * 32,))}, label="old")
    new = reference_values(Tee.SIMULATED, {"measurement": OneOf((MEASUREMENT,))}, label="new")
    assert appraise(GOOD, replace(policy(), accepted=(old, new)), nonce=NONCE, now=NOW)
    other = reference_values(Tee.SIMULATED, {"measurement": OneOf((b"n" * 32,))}, label="other")
    with pytest.raises(PolicyError) as raised:
        appraise(GOOD, replace(policy(), accepted=(old, other)), nonce=NONCE, now=NOW)
    assert [failure.text.split(":")[0] for failure in raised.value.failures] == ["old", "other"]


def test_a_debug_entry_does_not_lend_its_leave_to_another() -> None:
    debug = reference_values(Tee.SIMULATED, {"measurement": OneOf((b"d" * 32,))}, allow_debug=True)
    production = reference_values(Tee.SIMULATED, {"measurement": OneOf((MEASUREMENT,))})
    with pytest.raises(PolicyError) as raised:
        appraise(
            bundle_with(debug=True), replace(policy(), accepted=(debug, production)), nonce=NONCE, now=NOW
        )
    assert [failure.code for failure in raised.value.failures] == ["policy.code.measurement", "policy.debug"]


def test_only_accepted_models_are_handed_out() -> None:
    both = replace(statement(), models=(model(), model("other", digest="00" * 32)))
    assert appraise(bundle(both), policy(), nonce=NONCE, now=NOW).models == (model(),)
    dangerous = replace(policy(), models=DangerousAnyModel())
    assert len(appraise(bundle(both), dangerous, nonce=NONCE, now=NOW).models) == 2


def test_any_deployment_is_accepted_when_said() -> None:
    anywhere = replace(policy(), deployments=ANY)
    assert appraise(bundle(replace(statement(), deployment="x")), anywhere, nonce=NONCE, now=NOW)


def test_a_verification_ends_with_the_first_of_its_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    def until(freshness: Freshness, endorsed: datetime | None = None) -> datetime:
        genuine = simulated.verify
        monkeypatch.setattr(
            simulated, "verify", lambda evidence, **_: replace(genuine(evidence), valid_until=endorsed)
        )
        try:
            return appraise(GOOD, replace(policy(), freshness=freshness), nonce=NONCE, now=NOW).valid_until
        finally:
            monkeypatch.setattr(simulated, "verify", genuine)

    day = timedelta(days=1)
    assert until(Freshness(max_verification_age=timedelta(hours=3))) == NOW + timedelta(hours=3)
    assert until(Freshness(max_verification_age=9 * day)) == NOW + 2 * LIFETIME
    # The next epoch's key begins a day from now and may be used for six hours.
    assert until(Freshness(max_verification_age=9 * day, max_key_age=day / 4)) == NOW + day + day / 4
    assert until(Freshness(max_verification_age=9 * day), NOW + timedelta(minutes=1)) == NOW + timedelta(
        minutes=1
    )


def test_own_endorsements_replace_the_servers_of_their_type() -> None:
    bundled = (("a/b", b"theirs"), ("c/d", b"theirs"), ("a/b", b"theirs too"))
    assert merge_endorsements(bundled, ()) == bundled
    assert merge_endorsements(bundled, (("a/b", b"ours"),)) == (("a/b", b"ours"), ("c/d", b"theirs"))


def test_endorsements_reach_the_verifier_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[tuple[str, bytes], ...]] = []
    genuine: Callable[..., Claims] = verify_evidence

    def spy(tee: Tee, evidence: bytes, endorsements: tuple[tuple[str, bytes], ...], **rest: object) -> Claims:
        seen.append(endorsements)
        return genuine(tee, evidence, endorsements, **rest)

    monkeypatch.setattr(door, "verify_evidence", spy)
    endorsed = replace(GOOD, endorsements=(("a/b", b"theirs"), ("c/d", b"theirs")))
    appraise(endorsed, policy(), nonce=NONCE, now=NOW, endorsements=(("a/b", b"ours"),))
    assert seen == [(("a/b", b"ours"), ("c/d", b"theirs"))]


_ALONE = {
    "bundle.statement",
    "binding.nonce",
    "policy.freshness",
    "policy.keys",
    "policy.models",
    "policy.deployment",
}


def _bare(evidence: bytes, expected: bytes | None, of: Policy, steps: list[Step]) -> Claims:
    return appraise_evidence(
        GOOD.evidence_type, evidence, of, expected_report_data=expected, now=NOW, trace=steps.append
    )


@pytest.mark.parametrize("given", [False, True])
def test_bare_evidence_takes_the_steps_that_need_no_statement(given: bool) -> None:
    steps: list[Step] = []
    expected = report_data(GOOD.statement) if given else None
    assert _bare(GOOD.evidence, expected, policy(), steps) == simulated.verify(GOOD.evidence)
    assert [step.id for step in steps if not step.part_of] == list(STEP_IDS)
    skipped = _ALONE | {"policy.tcb"} | (set() if given else {"binding.report-data"})
    assert {step.id for step in steps if step.outcome is Outcome.SKIP} == skipped
    passed = {step.id for step in steps if step.outcome is Outcome.PASS and not step.part_of}
    assert passed == set(STEP_IDS) - skipped


def test_bare_evidence_is_refused_by_the_same_steps() -> None:
    refused: list[tuple[bytes, Policy, str]] = [
        (b"", policy(), "evidence.genuine"),
        (bundle_with(report_data=bytes(64)).evidence, policy(), "binding.report-data"),
        (GOOD.evidence, _SNP_ONLY, "policy.tee"),
        (bundle_with(debug=True).evidence, policy(), "policy.debug"),
    ]
    for evidence, of, failing in refused:
        steps: list[Step] = []
        with pytest.raises(VerificationError):
            _bare(evidence, report_data(GOOD.statement), of, steps)
        assert [step.id for step in steps if not step.part_of] == list(STEP_IDS)
        failed = [step.id for step in steps if step.outcome is Outcome.FAIL and not step.part_of]
        assert failed == [failing]


def test_instants_at_the_end_of_the_calendar_are_refused_and_do_not_overflow() -> None:
    for year in (1, 9999):
        key = statement().keys[0]
        far = AttestedKey(
            key.config, 0, datetime(year, 1, 1, tzinfo=NOW.tzinfo), datetime(year, 12, 31, tzinfo=NOW.tzinfo)
        )
        with pytest.raises((PolicyError, BundleError)):
            appraise(bundle(replace(statement(), keys=(far,))), policy(), nonce=NONCE, now=NOW)
