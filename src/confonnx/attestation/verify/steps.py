"""The steps of an appraisal as people and programs see them. ``appraise`` performs them and says what each
means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from confonnx.errors import BundleError, Failure, VerificationError


class Outcome(StrEnum):
    """What became of a step."""

    PASS = "PASS"  # noqa: S105
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an appraisal, for people and programs to read. ``remedy`` is empty unless the step
    failed.
    """

    id: str
    title: str
    outcome: Outcome
    reason: str
    remedy: str = ""


_STEPS: Final[Mapping[str, tuple[str, str]]] = {  # id → what holds, and what to do when it does not
    "bundle.statement": ("the statement is well formed", "use client and server of matching versions"),
    "evidence.type": ("the kind of evidence is known", "upgrade the client"),
    "evidence.genuine": (
        "the evidence is genuine",
        "see the failed check; renew the endorsements if one expired",
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
        if self._trace is not None:
            title, remedy = _STEPS[step]
            self._trace(Step(step, title, outcome, reason, remedy if outcome is Outcome.FAIL else ""))
