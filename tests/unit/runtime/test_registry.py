"""All models of a server, and which of them run inline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from confonnx.errors import ConfigurationError, InferenceError, ModelFormatError, ModelNotFoundError
from confonnx.models.repository import load_single, scan_repository
from confonnx.oip.values import Value
from confonnx.runtime import inline
from confonnx.runtime.batching import BatchOptions
from confonnx.runtime.inline import InlineBound
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.registry import LoadedModel, Registry
from confonnx.runtime.session import Session
from tests.support import onnx_models as models

OPTIONS = SessionOptions()


def registry(tmp_path: Path, *versions: str) -> Registry:
    for version in versions:
        models.save(models.identity(), tmp_path / "m" / version / "model.onnx")
    return Registry.load(scan_repository(tmp_path), OPTIONS)


def test_a_model_is_found_by_name_and_version_and_the_highest_is_the_default(tmp_path: Path) -> None:
    models.save(models.identity(), tmp_path / "other.onnx")
    loaded = registry(tmp_path, "2", "10", "9")
    assert [model.description.version for model in loaded.models] == ["2", "9", "10", "1"]
    assert loaded.find("m").description.version == "10"
    assert loaded.find("m", "2").description.version == "2"
    assert loaded.find("other", "1").description.name == "other"


def test_the_description_is_what_was_loaded(tmp_path: Path) -> None:
    model = load_single(models.save(models.identity(), tmp_path / "m.onnx"))
    (loaded,) = Registry.load([model], OPTIONS).models
    description = loaded.description
    assert (description.name, description.version, description.digest) == ("m", "1", model.digest)
    assert description.digest == loaded.session.digest
    assert (description.inputs, description.outputs) == (loaded.session.inputs, loaded.session.outputs)


@pytest.mark.parametrize(
    ("name", "version", "text"),
    [
        ("x", None, "no model 'x'; this server has m"),
        ("m", "3", "model 'm' has no version '3'; this server has 1, 2"),
        ("m", "01", "has no version '01'"),
        ("m", "", "has no version ''"),
    ],
)
def test_what_is_not_there(tmp_path: Path, name: str, version: str | None, text: str) -> None:
    with pytest.raises(ModelNotFoundError, match=text):
        registry(tmp_path, "1", "2").find(name, version)


def test_two_models_of_one_name_and_version(tmp_path: Path) -> None:
    model = load_single(models.save(models.identity(), tmp_path / "m.onnx"))
    with pytest.raises(ConfigurationError, match="two models are 'm' version 1"):
        Registry.load([model, model], OPTIONS)


def test_no_model_at_all() -> None:
    with pytest.raises(ConfigurationError, match="no model to serve"):
        Registry.load([], OPTIONS)


def test_one_broken_model_stops_the_server(tmp_path: Path) -> None:
    good = load_single(models.save(models.identity(), tmp_path / "good.onnx"))
    bad = load_single(models.save(models.identity(opset=99), tmp_path / "bad.onnx"))
    with pytest.raises(ModelFormatError, match="'bad' version 1"):
        Registry.load([good, bad], OPTIONS)


def load(tmp_path: Path, proto: onnx.ModelProto) -> LoadedModel:
    return Registry.load([load_single(models.save(proto, tmp_path / "m.onnx"))], OPTIONS).find("m")


def floats(size: int) -> dict[str, Value]:
    return {"x": np.zeros(size, np.float32)}


def test_a_tiny_model_runs_inline_for_inputs_as_large_as_the_timed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline, "_timed", lambda session, inputs: 0.0005)
    model = load(tmp_path, models.identity())
    assert model.inline
    assert model.runs_inline(floats(524288))
    assert not model.runs_inline(floats(524289))  # the next size would be over 2 MiB
    assert not model.runs_inline({"unknown": np.zeros(1)})
    assert model.runs_inline({})


@pytest.mark.parametrize("first", [0.0011, 0.2])
def test_a_slow_model_goes_to_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: float) -> None:
    calls = []

    def timed(session: Session, inputs: dict[str, Value]) -> float:
        calls.append(inputs)
        return first

    monkeypatch.setattr(inline, "_timed", timed)
    model = load(tmp_path, models.identity())
    assert not model.inline
    assert not model.runs_inline(floats(1))
    assert len(calls) == (4 if first < 0.1 else 1), "a model that is far too slow is run once"


def test_the_first_run_does_not_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durations = iter([0.05, 0.0009, 0.002, 0.002] + [0.002] * 4)
    monkeypatch.setattr(inline, "_timed", lambda session, inputs: next(durations))
    assert load(tmp_path, models.identity()).inline_bound == InlineBound({"x": 8})


@pytest.mark.parametrize(
    ("fast", "refused", "bound"), [(8, None, 8), (127, None, 32), (128, None, 128), (9000, 512, 128)]
)
def test_the_bound_is_the_largest_size_that_is_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: int, refused: int | None, bound: int
) -> None:
    def timed(session: Session, inputs: dict[str, Value]) -> float:
        array = inputs["x"]
        assert isinstance(array, np.ndarray)
        if array.size == refused:
            raise InferenceError("not this one")
        return 0.0009 if array.size <= fast else 0.0011

    monkeypatch.setattr(inline, "_timed", timed)
    assert load(tmp_path, models.identity()).inline_bound == InlineBound({"x": bound})


@pytest.mark.parametrize(
    ("shape", "elements", "trials"), [(["n", "m"], 64, 1), ([3], 3, 2), (["n", 4], 4 * 131072, 8)]
)
def test_larger_sizes_are_tried_where_elements_tell_the_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: list[int | str], elements: int, trials: int
) -> None:
    calls = []

    def timed(session: Session, inputs: dict[str, Value]) -> float:
        calls.append(inputs)
        return 0.0001

    monkeypatch.setattr(inline, "_timed", timed)
    proto = models.model(
        {"x": models.tensor(1, shape)},
        {"y": models.tensor(1, shape)},
        [helper.make_node("Identity", ["x"], ["y"])],
    )
    assert load(tmp_path, proto).inline_bound == InlineBound({"x": elements})
    assert len(calls) == 4 * trials


def unbounded() -> list[onnx.ModelProto]:
    float_, int_ = models.tensor(1), models.tensor(7)
    fill = helper.make_node("ConstantOfShape", ["x"], ["y"])
    deep = helper.make_graph(
        [helper.make_node("Expand", ["v", "x"], ["w"])], "g", [], [helper.make_value_info("w", float_)]
    )
    branch = helper.make_node("If", ["c"], ["y"], then_branch=deep, else_branch=deep)
    return [
        models.model({"x": int_}, {"y": models.tensor(1, None)}, [fill]),
        models.model(
            {"x": int_, "c": models.tensor(9, []), "v": float_}, {"y": models.tensor(1, None)}, [branch]
        ),
    ]


@pytest.mark.parametrize("proto", unbounded())
def test_a_model_whose_work_follows_from_values_never_runs_inline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proto: onnx.ModelProto
) -> None:
    monkeypatch.setattr(inline, "_timed", lambda session, inputs: 0.0)
    assert not load(tmp_path, proto).inline


def test_every_operator_of_unbounded_work_exists() -> None:
    """A typo in the list would let its operator run inline."""
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    assert inline._UNBOUNDED.issubset(known)


def test_a_model_that_takes_only_one_is_timed_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def timed(session: Session, inputs: dict[str, Value]) -> float:
        array = inputs["x"]
        assert isinstance(array, np.ndarray)
        sizes.append(array.size)
        if array.size != 1:
            raise InferenceError("one only")
        return 0.0

    monkeypatch.setattr(inline, "_timed", timed)
    assert load(tmp_path, models.identity()).inline_bound == InlineBound({"x": 1})
    assert sizes == [8, 1, 1, 1, 1]


def test_a_model_that_refuses_test_inputs_still_loads_and_uses_the_pool(tmp_path: Path) -> None:
    gather = helper.make_node("Gather", ["w", "x"], ["y"])
    proto = models.model(
        {"x": models.tensor(7)},
        {"y": models.tensor(1)},
        [gather],
        initializers=[helper.make_tensor("w", 1, [0], [])],
    )
    assert not load(tmp_path, proto).inline


def test_sizes_of_other_values_count_too() -> None:
    bound = InlineBound({"x": 6})
    assert bound.allows({"x": np.array(["ab", "cd"], dtype=object)})  # a string counts its length and one
    assert not bound.allows({"x": np.array(["ab", "cde"], dtype=object)})
    assert bound.allows({"x": [np.zeros(2), np.zeros(3)]})
    assert not bound.allows({"x": [np.zeros(3), np.zeros(3)]})
    assert not bound.allows({"x": {"ab": 1.0, 1: 2.0}})
    assert bound.allows({"x": {1: 1.0, 2: 2.0}})
    assert bound.allows({"x": None})


def test_batching_is_by_name_for_all_versions_and_never_inline(tmp_path: Path) -> None:
    for version in ("1", "2"):
        models.save(models.identity(shape=("batch",)), tmp_path / "m" / version / "model.onnx")
    models.save(models.identity(), tmp_path / "other.onnx")
    options = BatchOptions(32, 500)
    loaded = Registry.load(scan_repository(tmp_path), OPTIONS, {"m": options})
    assert [loaded.find("m", version).batching for version in ("1", "2")] == [options] * 2
    assert loaded.find("other").batching is None
    inputs: dict[str, Value] = {"x": np.ones(1, np.float32)}
    assert loaded.find("other").runs_inline(inputs)
    assert not loaded.find("m").runs_inline(inputs)


def test_batching_of_a_model_that_is_not_there(tmp_path: Path) -> None:
    models.save(models.identity(), tmp_path / "m.onnx")
    with pytest.raises(ConfigurationError, match="--batch names the model 'n'; this server has m"):
        Registry.load(scan_repository(tmp_path), OPTIONS, {"n": BatchOptions(2)})


def test_batching_of_a_model_that_cannot_be_batched(tmp_path: Path) -> None:
    models.save(models.identity(shape=(3,)), tmp_path / "m.onnx")
    with pytest.raises(ConfigurationError, match="model 'm' version 1 cannot be batched: 'x' is no tensor"):
        Registry.load(scan_repository(tmp_path), OPTIONS, {"m": BatchOptions(2)})
