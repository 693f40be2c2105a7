"""The one door to trust (D4): bundle, policy, nonce and a clock value go in, attested keys come out, or an
error.

The steps, in this order. The first five stop at the first failure, since nothing after it would mean
anything; of the others every failure is collected, and they are raised together as one ``PolicyError``.

 1. ``bundle.statement``      the statement parses, in its one canonical form: ``BundleError``
 2. ``evidence.type``         the evidence is of a TEE that confonnx knows: ``EvidenceFormatError``
 3. ``evidence.genuine``      the TEE's own verification, by the checks that ``CHECKS`` of its module lists:
                              ``EvidenceFormatError``, ``EvidenceError``, ``EndorsementError``
 4. ``binding.report-data``   the evidence binds exactly these statement bytes: ``BindingError``
 5. ``binding.nonce``         the statement answers this caller's nonce: ``BindingError``
 6. ``policy.freshness``      the statement is neither old nor from the future
 7. ``policy.keys``           a key is valid now, and not older than the policy allows
 8. ``policy.tee``            the policy names this kind of TEE
 9. ``policy.debug``          production mode, or debug mode was allowed
10. ``policy.tcb``            TCB status, advisories, and how recent the collateral is
11. ``policy.code``           measurement or signer are accepted: this is the code
12. ``policy.platform``       attributes, versions and the other fields are accepted
13. ``policy.models``         a model is accepted
14. ``policy.deployment``     the deployment is accepted
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from confonnx.attestation.bundle import Bundle
from confonnx.attestation.claims import Claims
from confonnx.attestation.policy import Freshness, Policy, has_dcap_tcb
from confonnx.attestation.result import APPRAISER, AttestedKeys, usable_keys
from confonnx.attestation.statement import AttestedKey, Statement, parse_statement, report_data
from confonnx.attestation.verify.dispatch import (
    Endorsements,
    checks_of,
    merge_endorsements,
    tee_of_evidence,
    verify_evidence,
)
from confonnx.attestation.verify.steps import GENUINE, STEP_IDS, Outcome, Step, Steps
from confonnx.errors import BindingError, Failure, PolicyError

__all__ = ["STEP_IDS", "Outcome", "Step", "appraise", "appraise_evidence", "tee_of_evidence"]

_CLAIMS_STEPS: Final = ("policy.debug", "policy.tcb", "policy.code", "policy.platform")


def appraise(
    bundle: Bundle,
    policy: Policy,
    *,
    nonce: bytes | None,
    now: datetime,
    endorsements: Endorsements = (),
    trace: Callable[[Step], None] | None = None,
) -> AttestedKeys:
    """Appraises ``bundle`` under ``policy`` at ``now`` (aware).

    ``nonce`` is what the caller asked the server with; None for a bundle that was made for nobody in
    particular, of which the statement's age is then the only bound. ``endorsements`` are the caller's own,
    as pairs of media type and bytes; of each media type among them the bundle's are not looked at, so a
    server cannot choose weaker ones. ``trace`` receives every step with its outcome, also of an appraisal
    that fails; after ``evidence.genuine`` come the checks of the TEE's verifier, as parts of it.

    Raises ``BundleError`` or a ``VerificationError``; the module's docstring says which step raises what.
    """
    steps = Steps(trace)
    with steps.run("bundle.statement"):  # 1
        statement = parse_statement(bundle.statement)
    merged = merge_endorsements(bundle.endorsements, endorsements)
    claims = _genuine(steps, bundle.evidence_type, bundle.evidence, merged, policy=policy, now=now)  # 2, 3
    with steps.run("binding.report-data"):  # 4
        _check_report_data(claims, report_data(bundle.statement))
    if nonce is None:
        steps.skip("binding.nonce", "no nonce was asked with; the statement's age alone bounds its reuse")
    else:
        with steps.run("binding.nonce"):  # 5
            _check_nonce(statement, nonce)

    keys = _usable_lifetimes(statement.keys, policy.freshness.max_key_age)
    failures = (
        *steps.collect("policy.freshness", _check_freshness(statement, policy.freshness, now)),  # 6
        *steps.collect("policy.keys", _check_keys(keys, policy.freshness, now)),  # 7
        *_check_claims(steps, policy, claims, now),  # 8 to 12
        *steps.collect("policy.models", policy.check_models(statement.models)),  # 13
        *steps.collect("policy.deployment", policy.check_deployment(statement.deployment)),  # 14
    )
    if failures:
        raise PolicyError(failures)
    return AttestedKeys(
        claims=claims,
        statement=statement,
        models=policy.accepted_models(statement.models),
        keys=keys,
        verified_at=now,
        valid_until=_valid_until(claims, keys, policy.freshness, now),
        clock_skew=policy.freshness.max_clock_skew,
        appraiser=APPRAISER,
    )


def appraise_evidence(
    evidence_type: str,
    evidence: bytes,
    policy: Policy,
    *,
    expected_report_data: bytes | None,
    now: datetime,
    endorsements: Endorsements = (),
    trace: Callable[[Step], None] | None = None,
) -> Claims:
    """Appraises ``evidence`` without a statement, for people who look at evidence alone: steps 2 to 4 and 8
    to 12.

    It vouches for no key, so it returns claims. ``expected_report_data`` None leaves step 4 out. Raises a
    ``VerificationError``.
    """
    alone = "the evidence came without a statement"
    steps = Steps(trace)
    steps.skip("bundle.statement", alone)
    claims = _genuine(steps, evidence_type, evidence, endorsements, policy=policy, now=now)
    if expected_report_data is None:
        steps.skip("binding.report-data", "no report data to compare with was given")
    else:
        with steps.run("binding.report-data"):
            _check_report_data(claims, expected_report_data)
    for step in ("binding.nonce", "policy.freshness", "policy.keys"):
        steps.skip(step, alone)
    failures = _check_claims(steps, policy, claims, now)
    for step in ("policy.models", "policy.deployment"):
        steps.skip(step, alone)
    if failures:
        raise PolicyError(failures)
    return claims


def _genuine(
    steps: Steps,
    evidence_type: str,
    evidence: bytes,
    endorsements: Endorsements,
    *,
    policy: Policy,
    now: datetime,
) -> Claims:
    with steps.run("evidence.type"):
        tee = tee_of_evidence(evidence_type)
    checks = steps.verifier(checks_of(tee))
    with steps.run(GENUINE):
        return verify_evidence(tee, evidence, endorsements, policy=policy, now=now, checks=checks)


def _check_report_data(claims: Claims, expected: bytes) -> None:
    if not hmac.compare_digest(claims.report_data, expected):
        raise BindingError(
            "binding.report-data",
            f"the evidence binds {claims.report_data.hex() or 'nothing'}, expected {expected.hex()}: it "
            "is genuine evidence for something else",
        )


def _check_nonce(statement: Statement, nonce: bytes) -> None:
    if statement.nonce is None or not hmac.compare_digest(statement.nonce, nonce):
        found = "none" if statement.nonce is None else statement.nonce.hex()
        raise BindingError("binding.nonce", f"the statement's nonce is {found}, expected {nonce.hex()}")


def _check_freshness(statement: Statement, freshness: Freshness, now: datetime) -> tuple[Failure, ...]:
    age = now - statement.issued_at
    issued = f"the statement was issued at {statement.issued_at.isoformat()}"
    if age < -freshness.max_clock_skew:
        text = (
            f"{issued}, {-age} after our clock's {now.isoformat()}, expected at most "
            f"{freshness.max_clock_skew}"
        )
        return (Failure("policy.freshness.future", text),)
    if age > freshness.max_statement_age + freshness.max_clock_skew:
        text = (
            f"{issued}, {age} before our clock's {now.isoformat()}, expected at most "
            f"{freshness.max_statement_age}"
        )
        return (Failure("policy.freshness.age", text),)
    return ()


def _usable_lifetimes(keys: Sequence[AttestedKey], max_age: timedelta) -> tuple[AttestedKey, ...]:
    """The keys, each usable no longer than ``max_age`` after its epoch began."""
    # Compared as durations: not_before + max_age may be beyond the last date that there is.
    return tuple(
        replace(key, not_after=key.not_before + max_age) if key.not_after - key.not_before > max_age else key
        for key in keys
    )


def _check_keys(keys: Sequence[AttestedKey], freshness: Freshness, now: datetime) -> tuple[Failure, ...]:
    if usable_keys(keys, now=now, clock_skew=freshness.max_clock_skew):
        return ()
    lifetimes = ", ".join(f"{key.not_before.isoformat()} to {key.not_after.isoformat()}" for key in keys)
    text = (
        f"no key is valid at {now.isoformat()}; the server's keys, none used for more than "
        f"{freshness.max_key_age}, are valid from {lifetimes}"
    )
    return (Failure("policy.keys", text),)


def _check_claims(steps: Steps, policy: Policy, claims: Claims, now: datetime) -> tuple[Failure, ...]:
    failures = policy.check_claims(claims, now=now)
    unwelcome = tuple(failure for failure in failures if failure.code == "policy.tee")
    steps.collect("policy.tee", unwelcome)
    for step in _CLAIMS_STEPS:
        if unwelcome:
            steps.skip(step, f"the policy says nothing of {claims.tee}")
        elif step == "policy.tcb" and not has_dcap_tcb(claims.tee):
            steps.skip(step, f"{claims.tee} has no TCB status; its versions are checked with the platform")
        else:
            steps.collect(step, tuple(failure for failure in failures if _belongs(failure, step)))
    return failures


def _belongs(failure: Failure, step: str) -> bool:
    return failure.code == step or failure.code.startswith(f"{step}.")


def _valid_until(
    claims: Claims, keys: Sequence[AttestedKey], freshness: Freshness, now: datetime
) -> datetime:
    ends = [max(key.not_after for key in keys), now + freshness.max_verification_age]
    if claims.valid_until is not None:
        ends.append(claims.valid_until)
    return min(ends)
