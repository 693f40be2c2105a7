"""Rules over verified claims, and how they combine. A rule returns why it refuses; nothing means that it
accepts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from confonnx.attestation.claims import AzureClaims, Claims, DcapPlatform, SgxClaims, TcbStatus, TdxClaims
from confonnx.attestation.policy.fields import Field, Kind
from confonnx.attestation.policy.matchers import ANY, Masked, Matcher, Value
from confonnx.errors import ConfigurationError, Failure

# Intel issued collateral of this number on 2025-02-26; older numbers know fewer TCB recoveries. A release
# raises it.
MIN_TCB_EVALUATION_DATA_NUMBER: Final = 18


class Rule(Protocol):
    """One condition on what evidence says."""

    def check(self, claims: Claims, *, now: datetime) -> tuple[Failure, ...]:
        """Every reason to refuse ``claims`` at ``now``; empty when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every rule must accept; all failures are collected. Refuses to be empty, since that would accept
    everything.
    """

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        if not self.rules:
            raise ConfigurationError(
                "a policy with no rule would accept every server; give at least one rule"
            )

    def check(self, claims: Claims, *, now: datetime) -> tuple[Failure, ...]:
        return tuple(failure for rule in self.rules for failure in rule.check(claims, now=now))


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One rule must accept; when none does, the failures of all are the reasons. Refuses to be empty."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        if not self.rules:
            raise ConfigurationError("a choice among no rules accepts no server; give at least one rule")

    def check(self, claims: Claims, *, now: datetime) -> tuple[Failure, ...]:
        failures: list[Failure] = []
        for rule in self.rules:
            reasons = rule.check(claims, now=now)
            if not reasons:
                return ()
            failures += [reason for reason in reasons if reason not in failures]
        return tuple(failures)


@dataclass(frozen=True, slots=True)
class DebugRule:
    """Refuses a debug enclave or guest, whose memory the host can read, unless ``allowed``."""

    allowed: bool

    def check(self, claims: Claims, *, now: datetime) -> tuple[Failure, ...]:
        if not claims.debug or self.allowed:
            return ()
        text = (
            f"the {claims.tee} evidence is of debug mode, in which the host can read the memory; expected "
            "production mode (for tests: allow debug, --enclave-allow-debug)"
        )
        return (Failure("policy.debug", text),)


@dataclass(frozen=True, slots=True)
class FieldRule:
    """The value of one field is accepted by ``matcher``. A field that the evidence lacks is refused unless
    any value is accepted. ``stated``: the policy says so, and not a default."""

    field: Field
    matcher: Matcher
    stated: bool = True

    def check(self, claims: Claims, *, now: datetime) -> tuple[Failure, ...]:
        found = self.field.read(claims)
        if self.matcher == ANY or (found is not None and self.matcher.accepts(found)):
            return ()
        shown = "none" if found is None else show(found, self.field)
        text = f"{self.field.name}: expected {self.matcher}, found {shown}"
        if not self.stated and found is not None:
            statement = _statement(self.field, self.matcher, found)
            text += (
                f" (a default; if this is what you trust, state {statement} in [[server]] of a policy file)"
            )
        return (Failure(self.field.check_id, text),)


@dataclass(frozen=True, slots=True)
class DcapTcb:
    """What Intel's collateral must say of the platform (SGX, TDX, and TDX under Azure).

    ``statuses`` are accepted; ``grace_statuses`` too, for ``grace`` from the date of the TCB level that the
    platform has, which is the last day that Intel vouched for it as current, at the latest. ``Revoked`` is
    never accepted. Collateral with a lower ``tcbEvaluationDataNumber`` than
    ``min_tcb_evaluation_data_number`` does not know the newer TCB recoveries, and a server that brings its
    own collateral would choose it for that reason.
    """

    statuses: tuple[TcbStatus, ...] = (TcbStatus.UP_TO_DATE, TcbStatus.SW_HARDENING_NEEDED)
    grace_statuses: tuple[TcbStatus, ...] = ()
    grace: timedelta = timedelta(0)
    refused_advisories: tuple[str, ...] = ()
    min_tcb_evaluation_data_number: int = MIN_TCB_EVALUATION_DATA_NUMBER

    def __post_init__(self) -> None:
        refused = {TcbStatus.REVOKED, TcbStatus.NOT_APPLICABLE} & {*self.statuses, *self.grace_statuses}
        if not self.statuses or refused:
            raise ConfigurationError(
                f"the accepted TCB statuses are {', '.join(self.statuses + self.grace_statuses) or 'none'}: "
                f"name at least one, and never {TcbStatus.REVOKED} or {TcbStatus.NOT_APPLICABLE}"
            )
        if bool(self.grace_statuses) != (self.grace > timedelta(0)):
            raise ConfigurationError(
                "a TCB grace period needs both its statuses and its length of more than zero"
            )

    def check(self, claims: Claims, *, now: datetime) -> tuple[Failure, ...]:
        platform = dcap_platform(claims)
        if platform is None:
            return (
                Failure("policy.tcb.status", "TCB status: the evidence has none from Intel's collateral"),
            )
        failures: list[Failure] = []
        if reason := self._status(claims.tcb_status, platform, now):
            failures.append(Failure("policy.tcb.status", f"TCB status: {reason}"))
        if refused := sorted(set(claims.advisories) & set(self.refused_advisories)):
            text = (
                f"the platform is affected by {', '.join(refused)}, which the policy refuses; its owner "
                "must update it"
            )
            failures.append(Failure("policy.tcb.advisories", text))
        number = platform.tcb_evaluation_data_number
        if number < self.min_tcb_evaluation_data_number:
            text = (
                "tcbEvaluationDataNumber of the collateral: expected "
                f"{self.min_tcb_evaluation_data_number} or more, found {number}; the server must send "
                "newer collateral"
            )
            failures.append(Failure("policy.tcb.evaluation", text))
        return tuple(failures)

    def _status(self, status: TcbStatus, platform: DcapPlatform, now: datetime) -> str | None:
        if status in self.statuses:
            return None
        accepted = " or ".join(self.statuses)
        if status in self.grace_statuses:
            end = platform.tcb_date + self.grace
            if now <= end:
                return None
            return f"expected {accepted}, found {status}, whose grace period ended {end:%Y-%m-%d}"
        return (
            f"expected {accepted}, found {status}; the platform's owner must update firmware or configuration"
        )


def dcap_platform(claims: Claims) -> DcapPlatform | None:
    """What Intel's collateral says of the platform; None for a TEE that is not Intel's."""
    details = claims.details.hardware if isinstance(claims.details, AzureClaims) else claims.details
    return details.platform if isinstance(details, SgxClaims | TdxClaims) else None


def show(found: Value, field: Field) -> str:
    """A field's value as messages and reports print it."""
    if isinstance(found, bytes):
        return found.hex()
    return f"{found:#x}" if field.kind is Kind.BITS else str(found)


def _statement(field: Field, matcher: Matcher, found: Value) -> str:
    """The line of a policy file that accepts ``found`` where the default ``matcher`` does not."""
    if isinstance(matcher, Masked) and isinstance(found, int):
        return f'{field.key} = {{ mask = "{matcher.mask:#x}", value = "{found & matcher.mask:#x}" }}'
    return f'{field.key} = ["{found.hex()}"]' if isinstance(found, bytes) else f"{field.key} = [{found!r}]"
