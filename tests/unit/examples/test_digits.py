"""The committed digit classifier: trained by the script beside it, the same bytes each time, and good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from confonnx.models.repository import load_single
from confonnx.oip.datatypes import Datatype, TensorType
from confonnx.oip.values import check_inputs
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.registry import Registry
from examples.digits import train

MODEL = train.PACKAGE_DATA / "digits.onnx"
TEST_SET = train.PACKAGE_DATA / "digits_test.npz"


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]]:
    with np.load(TEST_SET) as archive:
        yield {name: archive[name] for name in archive.files}


def test_training_again_gives_the_same_bytes() -> None:
    model, test_set, accuracy = train.train()
    assert model == MODEL.read_bytes()
    assert test_set == TEST_SET.read_bytes()
    assert accuracy > 0.95


def test_the_script_writes_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", str(tmp_path / "new")])
    train.main()
    assert (tmp_path / "new" / "digits.onnx").read_bytes() == MODEL.read_bytes()
    assert (tmp_path / "new" / "digits_test.npz").read_bytes() == TEST_SET.read_bytes()
    assert "96.1% of 360 test images" in capsys.readouterr().out


def test_the_files_are_small() -> None:
    assert MODEL.stat().st_size < 4_000
    assert TEST_SET.stat().st_size < 50_000


def test_the_model_takes_what_the_readme_gives_it(
    images: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]],
) -> None:
    model = Registry.load([load_single(MODEL)], SessionOptions()).find("digits")
    assert model.description.inputs[0].type == TensorType(Datatype.FP32, ("batch", 8, 8))
    assert model.inline
    outputs = model.session.run(check_inputs({"image": images["images"]}, model.session.inputs))
    digit, probabilities = outputs["digit"], outputs["probabilities"]
    assert isinstance(digit, np.ndarray)
    assert isinstance(probabilities, np.ndarray)
    assert (str(digit.dtype), digit.shape) == ("int64", (360,))
    assert (str(probabilities.dtype), probabilities.shape) == ("float32", (360, 10))
    assert float((digit == images["labels"]).mean()) > 0.95
    assert np.array_equal(probabilities.argmax(axis=1), digit)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
