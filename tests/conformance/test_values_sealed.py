"""What is no tensor of numbers, through the encrypted client: strings, maps, sequences, optionals."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from confonnx.client import Client
from confonnx.errors import InvalidInputError
from confonnx.oip.datatypes import Array
from confonnx.oip.values import Value
from confonnx.runtime.ort import onnxruntime
from tests.support import onnx_models
from tests.support.onnx_backend import same_bits
from tests.support.running import running_server

TOWNS = np.array([["Zürich"], ["Ōsaka"], [""], ["Zürich"], ["unseen"]], dtype=object)
AGES = np.array([[31.5], [47.25], [18.0], [64.0], [5.0]], np.float32)


@dataclass(frozen=True, slots=True)
class _Setting:
    client: Client
    pipeline: Pipeline
    converted: onnx.ModelProto


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Setting]:
    """A server with a scikit-learn pipeline and models that give back what they get."""
    directory = tmp_path_factory.mktemp("models")
    pipeline = _trained()
    converted = _converted(pipeline)
    floats, strings = (onnx_models.tensor(kind, ["n"]) for kind in (TensorProto.FLOAT, TensorProto.STRING))
    models = {
        "rides": converted,
        "floats": _identity(onnx_models.sequence(floats)),
        "strings": _identity(onnx_models.sequence(strings)),
        "is_there": _is_there(onnx_models.optional(floats)),
    }
    for name, model in models.items():
        onnx_models.save(model, directory / f"{name}.onnx")
    with (
        running_server("--model-repository", str(directory)) as server,
        Client(
            server.url, enclave_hash=server.measurement, dangerous_any_model=True, allow_simulated=True
        ) as client,
    ):
        yield _Setting(client, pipeline, converted)


def test_a_pipeline_with_strings_gives_a_list_of_dicts(setting: _Setting) -> None:
    columns = {"town": TOWNS, "age": AGES}
    answer = setting.client.predict(columns, model="rides")

    session = onnxruntime.InferenceSession(
        setting.converted.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    labels, probabilities = session.run(["output_label", "output_probability"], columns)
    assert same_bits(answer["output_label"], labels)
    assert answer["output_probability"] == probabilities
    assert [set(row) for row in probabilities] == [{"often", "never"}] * len(TOWNS)
    assert labels.tolist() == setting.pipeline.predict(_table(TOWNS, AGES)).tolist()


@pytest.mark.parametrize(
    "value",
    [
        [np.array([1.5, -0.0], np.float32), np.array([], np.float32), np.array([np.nan], np.float32)],
        [],
    ],
)
def test_sequences_of_tensors(value: Value, setting: _Setting) -> None:
    assert same_bits(setting.client.predict({"x": value}, model="floats")["y"], value)


def test_sequences_of_strings(setting: _Setting) -> None:
    value: Value = [np.array(["", "ß\n", "語"], object), np.array([], object)]
    assert same_bits(setting.client.predict({"x": value}, model="strings")["y"], value)


@pytest.mark.parametrize("value", [np.array([0.25, 4.0], np.float32), None])
def test_optionals_with_and_without_a_value(value: Value, setting: _Setting) -> None:
    answer = setting.client.predict({"x": value}, model="is_there")
    assert same_bits(answer["there"], np.array(value is not None))


def test_what_does_not_fit_a_sequence_is_refused_by_name(setting: _Setting) -> None:
    with pytest.raises(InvalidInputError, match="input 'x'"):
        setting.client.predict({"x": {"a": 1}}, model="floats")


def _identity(type_: onnx.TypeProto) -> onnx.ModelProto:
    return onnx_models.model({"x": type_}, {"y": type_}, [helper.make_node("Identity", ["x"], ["y"])])


def _is_there(type_: onnx.TypeProto) -> onnx.ModelProto:
    return onnx_models.model(
        {"x": type_},
        {"there": onnx_models.tensor(TensorProto.BOOL, [])},
        [helper.make_node("OptionalHasElement", ["x"], ["there"])],
    )


def _trained() -> Pipeline:
    """Whether somebody rides often, by town and age."""
    features = ColumnTransformer(
        [("town", OneHotEncoder(handle_unknown="ignore"), [0]), ("age", StandardScaler(), [1])]
    )
    rides = np.array(["often", "never", "never", "often", "never"])
    return make_pipeline(features, LogisticRegression()).fit(_table(TOWNS, AGES), rides)


def _table(towns: Array, ages: Array) -> Array:
    return np.hstack([towns, ages.astype(object)])


def _converted(pipeline: Pipeline) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's, about itself
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType, StringTensorType

        columns = [("town", StringTensorType([None, 1])), ("age", FloatTensorType([None, 1]))]
        model: onnx.ModelProto = convert_sklearn(
            pipeline, initial_types=columns, target_opset={"": 21, "ai.onnx.ml": 3}
        )
    return model
