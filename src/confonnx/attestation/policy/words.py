"""A policy in words, for ``confonnx policy show`` and ``diff``."""

from __future__ import annotations

from datetime import timedelta

from confonnx.attestation.policy.fields import Role
from confonnx.attestation.policy.matchers import ANY, AnyValue
from confonnx.attestation.policy.parts import DangerousAnyModel
from confonnx.attestation.policy.policy import Policy
from confonnx.attestation.policy.reference import ReferenceValues


def describe(policy: Policy) -> list[str]:
    """What the policy accepts, one sentence a line: every check, and what it leaves open."""
    return [f"{subject}: {text}" for subject, text in _facts(policy).items()]


def diff(old: Policy, new: Policy) -> list[str]:
    """What changed from ``old`` to ``new``, one sentence a line; empty when they accept the same."""
    before, after = _facts(old), _facts(new)
    lines: list[str] = []
    for subject in dict.fromkeys([*before, *after]):
        was, now = before.get(subject), after.get(subject)
        if was is None:
            lines.append(f"{subject}: now {now}")
        elif now is None:
            lines.append(f"{subject}: no longer {was}")
        elif was != now:
            lines.append(f"{subject}: was {was}, now {now}")
    return lines


def _facts(policy: Policy) -> dict[str, str]:
    facts: dict[str, str] = {}
    if isinstance(policy.models, DangerousAnyModel):
        facts["model"] = "DANGER: any model, so the host chooses which one answers"
    else:
        facts["model"] = " or ".join(policy.models.digests)
    deployments = policy.deployments
    facts["deployment"] = (
        str(ANY) if isinstance(deployments, AnyValue) else " or ".join(map(repr, deployments))
    )
    ages = policy.freshness
    facts["statement"] = f"at most {_duration(ages.max_statement_age)} old"
    facts["clocks"] = f"at most {_duration(ages.max_clock_skew)} apart"
    facts["keys"] = f"used for at most {_duration(ages.max_key_age)} after their epoch began"
    facts["verification"] = f"repeated after {_duration(ages.max_verification_age)}"
    for server in policy.accepted:
        title = server.title
        number = 1
        while f"server {title}" in facts:  # two entries for one TEE without labels of their own
            number += 1
            title = f"{server.title} #{number}"
        facts |= _server_facts(f"server {title}", server)
    return facts


def _server_facts(title: str, server: ReferenceValues) -> dict[str, str]:
    stated = {key for key, _ in server.values}
    facts = {title: "accepted"}
    facts[f"{title}, debug mode"] = (
        "DANGER: accepted, the host can read its memory" if server.allow_debug else "refused"
    )
    for field, matcher in server.conditions:
        if field.role is Role.CHOICE and field.key not in stated:
            continue
        facts[f"{title}, {field.name}"] = str(matcher)
    if (tcb := server.tcb) is not None:
        facts[f"{title}, TCB status"] = " or ".join(tcb.statuses)
        if tcb.grace_statuses:
            facts[f"{title}, TCB status"] += (
                f", and {' or '.join(tcb.grace_statuses)} for {_duration(tcb.grace)} from the date of the "
                "TCB level"
            )
        facts[f"{title}, advisories"] = (
            "none may be " + ", ".join(tcb.refused_advisories) if tcb.refused_advisories else "not looked at"
        )
        facts[f"{title}, tcbEvaluationDataNumber"] = f"{tcb.min_tcb_evaluation_data_number} or more"
    return facts


def _duration(value: timedelta) -> str:
    seconds = value // timedelta(seconds=1)
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size and seconds % size == 0:
            count = seconds // size
            return f"{count} {unit}" + "s" * (count != 1)
    return f"{seconds} second" + "s" * (seconds != 1)
