"""How ``confonnx verify`` says what it found: every step, and what the verdict does not cover."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from confonnx.attestation.verify.appraise import STEP_IDS, Outcome, Step
from confonnx.errors import BundleError, CheckError, Failure, PolicyError, VerificationError

_BOUND = (
    "ACCEPTED AS EVIDENCE ALONE: it binds the report data that you gave. It vouches for no key, so nothing "
    "may be sealed on the strength of it."
)
_UNBOUND = (
    "WARNING: BOUND TO NOTHING. The evidence is genuine and the policy accepts it, but without --report-data "
    "it may have been copied from any machine: it says nothing about who shows it to you."
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of each step. ``refusal`` is None when the policy accepts.

    ``bound`` is None for a bundle, whose statement is bound or else refused; for bare evidence it says
    whether there was something to compare its report data with.
    """

    steps: tuple[Step, ...]
    refusal: VerificationError | BundleError | None
    bound: bool | None

    def as_text(self) -> str:
        """For people: the numbered steps, then the verdict."""
        width = max(len(step.id) for step in self.steps)
        lines = []
        for number, step in zip(_numbers(self.steps), self.steps, strict=True):
            lines.append(f"{number:>4}  {step.outcome:4}  {step.id:{width}}  {step.title}")
            if step.reason:
                lines.append(f"            why: {step.reason}")
            if step.remedy:
                lines.append(f"            do:  {step.remedy}")
        return "\n".join([*lines, self._summary()])

    def as_json(self) -> str:
        """For programs. ``bound``: the evidence was compared with what it must bind, and did."""
        document = {
            "accepted": self.refusal is None,
            "bound": self.bound is not False and self.refusal is None,
            "code": None if self.refusal is None else self.refusal.code,
            "failures": [{"code": failure.code, "text": failure.text} for failure in self._failures()],
            "not_checked": self._skipped(),
            "steps": [
                {
                    "id": step.id,
                    "part_of": step.part_of,
                    "outcome": step.outcome.value,
                    "title": step.title,
                    "reason": step.reason,
                    "remedy": step.remedy,
                }
                for step in self.steps
            ],
        }
        return json.dumps(document, indent=2, ensure_ascii=False)

    def _summary(self) -> str:
        failed = [step.id for step in self.steps if step.outcome is Outcome.FAIL]
        if self.refusal is not None:
            return f"REFUSED ({len(failed)} of {len(self.steps)} steps failed: {', '.join(failed)})"
        skipped = ", ".join(self._skipped())
        if self.bound is None:
            return f"ACCEPTED (not checked: {skipped})" if skipped else "ACCEPTED"
        return f"{_BOUND if self.bound else _UNBOUND}\nNot checked: {skipped}"

    def _skipped(self) -> list[str]:
        return [
            step.id
            for step in self.steps
            if step.outcome is Outcome.SKIP and (step.part_of or step.id in STEP_IDS)
        ]

    def _failures(self) -> tuple[Failure, ...]:
        """Every check that failed, such as ``sev-snp.signature`` or ``policy.code.measurement``."""
        match self.refusal:
            case None:
                return ()
            case PolicyError():
                return self.refusal.failures
            case CheckError():
                return (Failure(self.refusal.check, str(self.refusal)),)
            case _:
                return (Failure(self.refusal.code, str(self.refusal)),)


def _numbers(steps: Sequence[Step]) -> Iterator[str]:
    """Of each step: its place in the appraisal, and for its parts 3.1, 3.2 and so on. Getting endorsements is
    no step of the appraisal and has none."""
    part = 0
    for step in steps:
        part = part + 1 if step.part_of else 0
        if step.part_of:
            yield f"{STEP_IDS.index(step.part_of) + 1}.{part}"
        else:
            yield str(STEP_IDS.index(step.id) + 1) if step.id in STEP_IDS else ""
