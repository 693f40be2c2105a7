"""Every case of the ONNX backend suite that stock onnxruntime passes, passes in a Session too."""

from __future__ import annotations

import hashlib

import pytest

from confonnx.errors import ConfonnxError
from confonnx.models.digest import ModelBytes
from confonnx.oip.values import check_inputs
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.session import Session
from tests.support.onnx_backend import Case, cases, failing_cases, passing_cases


@pytest.mark.slow
def test_all_cases_that_stock_onnxruntime_passes(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ONNX_HOME", str(home))
    expected = passing_cases()
    problems = {case.name: problem for case in cases() if (problem := _problem(case)) is not None}
    broken = {name: problem for name, problem in problems.items() if name in expected}
    assert not broken
    assert len(expected) == 1848
    # A case outside both lists means that the suite changed and the baseline must be made again.
    assert set(problems) <= failing_cases()
    assert not list(home.iterdir()), "running models must not write to the home directory"


def _problem(case: Case) -> str | None:
    """What goes wrong with a case; None if nothing. Any error that is not ours breaks the test."""
    content = ModelBytes(case.model, (), hashlib.sha256(case.model).hexdigest())
    try:
        session = Session.from_bytes(content, SessionOptions(), source=case.name)
        for inputs, expected in case.data_sets:
            checked = check_inputs(inputs, session.inputs, convert=False)
            outputs = session.run(checked)
            case.check(expected, list(outputs.values()))
    except (ConfonnxError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    return None
