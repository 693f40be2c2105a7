"""The whole ONNX backend suite through the encrypted client, against a running server.

What onnxruntime gives in process, the client gets, to the last bit; what onnxruntime refuses at run time
arrives as its message; and what it cannot even load is exactly what the baseline says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from confonnx.client import Client
from confonnx.errors import ConfonnxError, InferenceError, ModelFormatError
from confonnx.models.digest import ModelBytes
from confonnx.oip.values import Value, check_inputs
from confonnx.runtime.cpus import Threads, available_cpus
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.session import Session
from tests.support.onnx_backend import BASELINE, Case, cases, passing_cases, same_bits
from tests.support.running import running_server
from tests.support.shared import vector

BATCHES = 5  # of some 400 models for one server each
# Without a seed each run of a session drops other elements; none of these is a passing case.
RANDOM = {
    "test_training_dropout",
    "test_training_dropout_default",
    "test_training_dropout_default_mask",
    "test_training_dropout_mask",
}

_Answer = dict[str, Value] | str  # outputs by name, or the runtime's message


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A case whose model loads, and what a session in this process answers for each of its data sets."""

    case: Case
    answers: tuple[_Answer, ...]


def test_the_batches_hold_the_whole_suite() -> None:
    names = [case.name for batch in range(BATCHES) for case in _batch(batch)]
    assert len(names) == len(set(names)) == 2033
    assert set(names) == passing_cases() | set(vector(BASELINE)["fail"])
    assert len(passing_cases()) == 1848
    assert passing_cases().isdisjoint(RANDOM)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_case_is_the_same_sealed_as_in_process(
    batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, repository = tmp_path / "home", tmp_path / "models"
    home.mkdir()
    repository.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ONNX_HOME", str(home))
    options = SessionOptions(intra_op_threads=Threads.plan(available_cpus()).intra_op)

    loaded, unloadable = [], set()
    for case in _batch(batch):
        try:
            loaded.append(_in_process(case, options))
        except ModelFormatError:
            unloadable.add(case.name)
        else:
            (repository / f"{case.name}.onnx").write_bytes(case.model)
    assert unloadable == {case.name for case in _batch(batch)} & _refused_at_load()

    with (
        running_server("--model-repository", str(repository)) as server,
        Client(
            server.url, enclave_hash=server.measurement, dangerous_any_model=True, allow_simulated=True
        ) as client,
    ):
        problems = dict(_problems(client, loaded))
    assert not problems
    assert {entry.case.name for entry in loaded} >= {case.name for case in _batch(batch)} & passing_cases()
    assert not list(home.iterdir()), "running models must not write to the home directory"


def _batch(number: int) -> list[Case]:
    return [case for index, case in enumerate(cases()) if index % BATCHES == number]


def _refused_at_load() -> set[str]:
    """The baseline's failures without those that show only when the model runs, or in what it gives."""
    reasons: Mapping[str, tuple[str, str, str]] = vector(BASELINE)["fail"]
    return {
        name
        for name, (_, stage, reason) in reasons.items()
        if stage == "run" and "Non-zero status code returned" not in reason
    }


def _in_process(case: Case, options: SessionOptions) -> _Loaded:
    content = ModelBytes(case.model, (), hashlib.sha256(case.model).hexdigest())
    session = Session.from_bytes(content, options, source=case.name)
    return _Loaded(case, tuple(_answer(session, inputs) for inputs, _ in case.data_sets))


def _answer(session: Session, inputs: Mapping[str, Value]) -> _Answer:
    try:
        return session.run(check_inputs(inputs, session.inputs, convert=False))
    except InferenceError as error:
        return str(error)


def _problems(client: Client, loaded: list[_Loaded]) -> Iterator[tuple[str, str]]:
    passing = passing_cases()
    for case, answers in ((entry.case, entry.answers) for entry in loaded):
        for (inputs, reference), expected in zip(case.data_sets, answers, strict=True):
            try:
                found = client.predict(inputs, model=case.name)
                problem = None if case.name in RANDOM else _difference(expected, found)
                if case.name in passing:
                    case.check(reference, list(found.values()))
            except (ConfonnxError, AssertionError) as error:
                problem = _unexpected(expected, error)
            if problem is not None:
                yield case.name, problem


def _unexpected(expected: _Answer, error: Exception) -> str | None:
    """What is wrong about ``error``; None where it is the runtime's own message."""
    if isinstance(error, InferenceError) and isinstance(expected, str) and expected in str(error):
        return None
    return f"{type(error).__name__}: {error}"


def _difference(expected: _Answer, found: Mapping[str, Value]) -> str | None:
    if isinstance(expected, str):
        return f"in process it fails: {expected}"
    if list(found) != list(expected):
        return f"expected outputs {list(expected)}, found {list(found)}"
    different = [output for output, value in expected.items() if not same_bits(value, found[output])]
    return f"other bits than in process in {different}" if different else None
