"""What a verifier raised, held against what it told of its checks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from confonnx.attestation.verify.steps import GENUINE, Checks, CheckTable, Outcome, Step, Steps
from confonnx.errors import CheckError, VerificationError


@contextmanager
def traced(table: CheckTable, *, outside: Collection[str] = ()) -> Iterator[Checks]:
    """The checks for a verifier that lists ``table``; the block runs it.

    Of a verifier that raises, exactly the check that it names failed. Of one that does not, every check held
    or was skipped for a reason; ``outside`` are those that the test's call leaves to its caller.
    """
    steps: list[Step] = []
    recorder = Steps(steps.append)
    recorder.skip("bundle.statement", "the evidence alone")
    recorder.skip("evidence.type", "the evidence alone")
    checks = recorder.verifier(table)
    try:
        with recorder.run(GENUINE):
            yield checks
    except VerificationError as error:
        _one_failed(_parts(steps, table), error)
        raise
    for part in _parts(steps, table):
        explained = part.outcome is Outcome.SKIP and part.reason not in ("", " failed")
        assert part.outcome is Outcome.PASS or explained or part.id in outside, f"{part.id}: {part.outcome}"


def _one_failed(parts: list[Step], error: VerificationError) -> None:
    failed = [part for part in parts if part.outcome is Outcome.FAIL]
    assert len(failed) == 1, f"{error} is not the failure of one check: {failed}"
    assert failed[0].reason == str(error)
    assert failed[0].remedy
    if isinstance(error, CheckError):
        assert failed[0].id == error.check


def _parts(steps: list[Step], table: CheckTable) -> list[Step]:
    parts = [step for step in steps if step.part_of]
    assert [part.id for part in parts] == list(table)
    return parts
