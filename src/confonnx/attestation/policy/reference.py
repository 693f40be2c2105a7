"""Reference Values (RFC 9334 §8.3): one kind of server that a policy accepts, on one kind of TEE."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from confonnx.attestation.claims import Claims, Tee
from confonnx.attestation.policy.fields import Field, Kind, Role, fields_of, has_dcap_tcb
from confonnx.attestation.policy.matchers import (
    ANY,
    AnyValue,
    AtLeast,
    AtLeastEach,
    Masked,
    Matcher,
    OneOf,
    OneOfNumbers,
    OneOfTexts,
)
from confonnx.attestation.policy.rules import AllOf, DcapTcb, DebugRule, FieldRule, Rule
from confonnx.errors import ConfigurationError, Failure


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """What evidence of ``tee`` must show. Every condition must hold; alternatives are several
    ``ReferenceValues``.

    ``values`` pairs the keys of ``fields.fields_of(tee)`` with what is accepted; what must be stated is
    checked here, and raises ``ConfigurationError``. ``label`` names the entry in messages. ``tcb`` is given
    for Intel's TEEs and for no other.
    """

    tee: Tee
    values: tuple[tuple[str, Matcher], ...]
    label: str = ""
    allow_debug: bool = False
    tcb: DcapTcb | None = None

    def __post_init__(self) -> None:
        stated = dict(self.values)
        if len(stated) != len(self.values):
            raise ConfigurationError(f"{self.title}: a field is stated twice")
        known = {field.key: field for field in fields_of(self.tee)}
        for key, matcher in self.values:
            if key not in known:
                raise ConfigurationError(f"{self.title}: {unknown_key(key, known)}")
            _check_kind(self.title, known[key], matcher)
        _check_roles(self.title, known.values(), stated)
        if (self.tcb is not None) != has_dcap_tcb(self.tee):
            raise ConfigurationError(
                f"{self.title}: TCB statuses are "
                + ("missing" if self.tcb is None else "Intel's, and this TEE has none; leave them out")
            )

    @property
    def title(self) -> str:
        """How messages name the entry."""
        return f"{self.tee} {self.label!r}" if self.label else str(self.tee)

    @property
    def conditions(self) -> tuple[tuple[Field, Matcher], ...]:
        """Every field of the TEE with what is accepted for it, stated or by default."""
        stated = dict(self.values)
        return tuple((field, stated.get(field.key, field.default or ANY)) for field in fields_of(self.tee))

    def check(self, claims: Claims, *, now: datetime) -> tuple[Failure, ...]:
        """Every reason why ``claims`` do not match, each after the label if there is one; a ``Rule``."""
        if claims.tee is not self.tee:
            return (Failure("policy.tee", f"TEE: expected {self.tee}, found {claims.tee}"),)
        rules: list[Rule] = [DebugRule(self.allow_debug)]
        if self.tcb is not None:
            rules.append(self.tcb)
        stated = dict(self.values)
        rules += [FieldRule(field, matcher, field.key in stated) for field, matcher in self.conditions]
        failures = AllOf(tuple(rules)).check(claims, now=now)
        if not self.label:
            return failures
        return tuple(Failure(failure.code, f"{self.label}: {failure.text}") for failure in failures)


def reference_values(
    tee: Tee,
    values: Mapping[str, Matcher],
    *,
    label: str = "",
    allow_debug: bool = False,
    tcb: DcapTcb | None = None,
) -> ReferenceValues:
    """``ReferenceValues`` in one order whatever the order of ``values``, and with the default ``DcapTcb``
    where the TEE needs one.
    """
    order = [field.key for field in fields_of(tee)]
    pairs = sorted(values.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order))
    if tcb is None and has_dcap_tcb(tee):
        tcb = DcapTcb()
    return ReferenceValues(tee, tuple(pairs), label, allow_debug, tcb)


def unknown_key(key: str, known: Collection[str]) -> str:
    """The message for a key that is not ``known``, with near matches."""
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


def _check_kind(title: str, field: Field, matcher: Matcher) -> None:
    match field.kind, matcher:
        case _, AnyValue():
            return
        case (Kind.DIGESTS, OneOf(values)) if len(values[0]) == field.size:
            return
        case (Kind.MINIMUM_EACH, AtLeastEach(minimum)) if len(minimum) == field.size:
            return
        case (Kind.NUMBERS, OneOfNumbers()) | (Kind.TEXTS, OneOfTexts()):
            return
        case (Kind.MINIMUM, AtLeast()) | (Kind.BITS, Masked()):
            return
    size = f" of {field.size} bytes" if field.size else ""
    raise ConfigurationError(
        f"{title}: {field.key} ({field.name}) takes {field.kind.expected}{size}, found {matcher}"
    )


def _check_roles(title: str, fields: Iterable[Field], stated: Mapping[str, Matcher]) -> None:
    fields = tuple(fields)
    code = [field for field in fields if field.role in (Role.WHOLE, Role.PART, Role.CHOICE)]
    if not any(_identifies(stated.get(field.key, ANY)) for field in code):
        keys = ", ".join(field.key for field in code)
        raise ConfigurationError(f"{title}: nothing says which code may run; state at least one of {keys}")
    whole = any(_identifies(stated.get(field.key, ANY)) for field in fields if field.role is Role.WHOLE)
    for field in fields:
        # A PCR may stay unsaid: there are 22, and no deployment can predict each of them.
        if field.key not in stated and not whole and field.role in (Role.PART, Role.CONTEXT):
            raise ConfigurationError(
                f"{title}: {field.key} ({field.name}) is not stated; give its accepted values, "
                'or "any" to accept every one'
            )
        based = field.role is Role.BASE and not whole and not _identifies(stated.get(field.key, ANY))
        unguarded = field.role is Role.GUARD and field.default is None and stated.get(field.key, ANY) == ANY
        if based or unguarded:
            raise ConfigurationError(
                f'{title}: {field.key} ({field.name}) must be restricted, and "any" is not enough: what the '
                "other fields say rests on it"
            )


def _identifies(matcher: Matcher) -> bool:
    """The matcher says which code it is. Registers that nothing was measured into are zero, whatever runs."""
    return isinstance(matcher, OneOf) and all(any(value) for value in matcher.values)
