"""The steps of an appraisal as people and programs see them. ``appraise`` performs them and says what each
means; the verifier of each TEE has checks of its own, which it lists in a table ``CHECKS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from confonnx.errors import BundleError, CheckError, Failure, VerificationError


class Outcome(StrEnum):
    """What became of a step."""

    PASS = "PASS"  # noqa: S105
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an appraisal, for people and programs to read. ``remedy`` is empty unless the step
    failed. ``part_of`` is the step of which this is a part, empty for the steps of ``STEP_IDS``.
    """

    id: str
    title: str
    outcome: Outcome
    reason: str
    remedy: str = ""
    part_of: str = ""


CheckTable: TypeAlias = Mapping[str, tuple[str, str]]
"""Identifier → what holds, and what to do when it does not; in the order in which they are made."""


@dataclass(frozen=True, slots=True)
class Checks:
    """Whom a verifier tells what became of each of its checks: ``tell(identifier, outcome, reason)``.

    A check may run several times, for several certificates say; it holds if it held each time.
    """

    tell: Callable[[str, Outcome, str], None]

    @contextmanager
    def run(self, check: str) -> Iterator[None]:
        """The block makes ``check``, which holds unless the block raises. An error that names another check,
        one that was made on the way, is that one's.
        """
        try:
            yield
        except VerificationError as error:
            failed = error.check if isinstance(error, CheckError) else check
            self.tell(failed, Outcome.FAIL, str(error))
            raise
        self.tell(check, Outcome.PASS, "")

    def skip(self, check: str, reason: str) -> None:
        """``check`` does not apply to this evidence."""
        self.tell(check, Outcome.SKIP, reason)


UNTRACED: Final = Checks(lambda _check, _outcome, _reason: None)


GENUINE: Final = "evidence.genuine"
_STEPS: Final[CheckTable] = {
    "bundle.statement": ("the statement is well formed", "use client and server of matching versions"),
    "evidence.type": ("the kind of evidence is known", "upgrade the client"),
    GENUINE: (
        "the evidence is genuine",
        "see the failed check below",
    ),
    "binding.report-data": (
        "the evidence binds the statement",
        "do not trust this server: the statement was exchanged",
    ),
    "binding.nonce": (
        "the statement answers our nonce",
        "ask again; an old answer was replayed if it persists",
    ),
    "policy.freshness": ("the statement is fresh", "check both clocks, and ask for a new attestation"),
    "policy.keys": ("a key is valid now", "check both clocks, and ask for a new attestation"),
    "policy.tee": ("the TEE is accepted", "name the TEE in the policy, or use a server in another one"),
    "policy.debug": ("not in debug mode", "start the server in production mode"),
    "policy.tcb": (
        "the platform is up to date",
        "the platform's owner must update it, or the policy accept its state",
    ),
    "policy.code": (
        "the code is accepted",
        "compare with `confonnx measure`; after an upgrade add the new value",
    ),
    "policy.platform": (
        "attributes and versions are accepted",
        "configure the server as the policy says, or adapt it",
    ),
    "policy.models": (
        "a model is accepted",
        "compare with `confonnx hash-model`; after an upgrade add the new value",
    ),
    "policy.deployment": ("the deployment is accepted", "use the server of the right deployment"),
}
STEP_IDS: Final = tuple(_STEPS)


class Steps:
    """Tells ``trace`` what became of each step; mutable, and lives for one appraisal."""

    def __init__(self, trace: Callable[[Step], None] | None) -> None:
        self._trace = trace
        self._done = 0
        self._table: CheckTable = {}
        self._outcomes: dict[str, tuple[Outcome, str]] = {}
        self._failed = ""

    def verifier(self, table: CheckTable) -> Checks:
        """For the verifier whose checks are ``table``: they are told after the step ``evidence.genuine``."""
        self._table = table
        return UNTRACED if self._trace is None else Checks(self._note)

    @contextmanager
    def run(self, step: str) -> Iterator[None]:
        """A step that ends the appraisal when it raises; the steps after it are skipped."""
        try:
            yield
        except (VerificationError, BundleError) as error:
            self._tell(step, Outcome.FAIL, str(error))
            for later in STEP_IDS[self._done :]:
                self._tell(later, Outcome.SKIP, f"{step} failed")
            raise
        self._tell(step, Outcome.PASS, "")

    def collect(self, step: str, failures: tuple[Failure, ...]) -> tuple[Failure, ...]:
        """A step whose ``failures`` are raised at the end, with those of others."""
        self._tell(step, Outcome.FAIL if failures else Outcome.PASS, "; ".join(map(str, failures)))
        return failures

    def skip(self, step: str, reason: str) -> None:
        """A step that does not apply."""
        self._tell(step, Outcome.SKIP, reason)

    def _tell(self, step: str, outcome: Outcome, reason: str) -> None:
        self._done += 1
        if self._trace is None:
            return
        self._trace(_step(step, _STEPS[step], outcome, reason))
        if step == GENUINE:
            for check, texts in self._table.items():
                found = self._outcomes.get(check, (Outcome.SKIP, f"{self._failed} failed"))
                self._trace(_step(check, texts, *found, part_of=GENUINE))

    def _note(self, check: str, outcome: Outcome, reason: str) -> None:
        # The first failure counts: the blocks around it see the same error again.
        if self._failed or (outcome is Outcome.SKIP and check in self._outcomes):
            return
        self._outcomes[check] = (outcome, reason)
        if outcome is Outcome.FAIL:
            self._failed = check


def _step(step: str, texts: tuple[str, str], outcome: Outcome, reason: str, part_of: str = "") -> Step:
    title, remedy = texts
    return Step(step, title, outcome, reason, remedy if outcome is Outcome.FAIL else "", part_of)
