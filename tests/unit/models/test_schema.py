"""What a model takes and gives, and what is said of a file that is no model."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from confonnx.errors import ModelFormatError
from confonnx.models.documents import model_info
from confonnx.models.schema import external_locations, operators, parse_model, read_schema, schema_of
from confonnx.oip.datatypes import Datatype, MapType, OptionalType, SequenceType, TensorType, ValueSpec
from tests.support import onnx_models as models


def test_tensors_with_fixed_named_and_nameless_dimensions(tmp_path: Path) -> None:
    path = models.save(models.identity(models.FLOAT, ["batch", None, 3]), tmp_path / "m.onnx")
    schema = read_schema(path)
    expected = TensorType(Datatype.FP32, ("batch", None, 3))
    assert schema.inputs == (ValueSpec("x", expected),)
    assert schema.outputs == (ValueSpec("y", expected),)
    assert schema.opsets == (("ai.onnx", 21), ("ai.onnx.ml", 3))
    assert (schema.ir_version, schema.producer) == (10, "tests")


def test_external_weights_are_not_needed(tmp_path: Path) -> None:
    path = models.save(models.with_external_data(), tmp_path / "m.onnx")
    assert [spec.name for spec in read_schema(path).inputs] == ["x"]


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (models.sequence(models.tensor(1)), SequenceType(TensorType(Datatype.FP32, ("N",)))),
        (models.optional(models.tensor(7, [])), OptionalType(TensorType(Datatype.INT64, ()))),
        (models.mapping(8, 1), MapType(Datatype.BYTES, TensorType(Datatype.FP32, ()))),
        (
            models.sequence(models.mapping(7, 11)),
            SequenceType(MapType(Datatype.INT64, TensorType(Datatype.FP64, ()))),
        ),
        (models.tensor(1, None), TensorType(Datatype.FP32, None)),
        (models.tensor(1, [-1, ""]), TensorType(Datatype.FP32, (None, None))),
        (models.tensor(22, [0]), TensorType(Datatype.INT4, (0,))),
    ],
)
def test_every_kind_of_type(proto: onnx.TypeProto, expected: object) -> None:
    parsed = schema_of(models.model({"x": proto}, {"y": proto}, []), source="m")
    assert [spec.type for spec in (*parsed.inputs, *parsed.outputs)] == [expected, expected]


@pytest.mark.parametrize("datatype", list(Datatype))
def test_every_element_type(datatype: Datatype) -> None:
    parsed = schema_of(models.identity(datatype.onnx_type, []), source="m")
    assert parsed.inputs[0].type == TensorType(datatype, ())


def test_a_map_type_whose_file_leaves_out_the_shape_of_its_values() -> None:
    proto = helper.make_map_type_proto(8, models.tensor(1, None))
    parsed = schema_of(models.model({"x": proto}, {}, []), source="m")
    assert parsed.inputs[0].type == MapType(Datatype.BYTES, TensorType(Datatype.FP32, ()))


def with_default(ir_version: int) -> onnx.ModelProto:
    type_ = models.tensor(1, [2])
    return models.model(
        {"x": type_, "w": type_},
        {"y": type_},
        [helper.make_node("Add", ["x", "w"], ["y"])],
        initializers=[models.weight("w", [1, 2])],
        ir_version=ir_version,
    )


def test_an_input_with_an_initializer_is_optional() -> None:
    parsed = schema_of(with_default(10), source="m")
    assert [(spec.name, spec.optional) for spec in parsed.inputs] == [("x", False), ("w", True)]


def test_before_ir_version_4_an_initializer_is_a_constant() -> None:
    assert [spec.name for spec in schema_of(with_default(3), source="m").inputs] == ["x"]


def test_an_input_of_optional_type_may_be_left_out() -> None:
    parsed = schema_of(models.model({"x": models.optional(models.tensor(1))}, {}, []), source="m")
    assert parsed.inputs[0].optional


def test_an_output_without_type_takes_the_fallback() -> None:
    proto = models.model({}, {"y": onnx.TypeProto()}, [])
    known = TensorType(Datatype.INT64, None)
    assert schema_of(proto, source="m", fallback=lambda name: known).outputs == (ValueSpec("y", known),)
    with pytest.raises(ModelFormatError, match=r"m: 'y' declares no type; run onnx.shape_inference"):
        schema_of(proto, source="m")


@pytest.mark.parametrize(
    ("proto", "text"),
    [
        (helper.make_sparse_tensor_type_proto(1, [2]), "is a sparse_tensor_type; expected a tensor"),
        (models.tensor(99), "ONNX element type 99"),
        (models.optional(models.optional(models.tensor(1))), "an optional cannot hold an optional"),
        (helper.make_map_type_proto(8, models.tensor(1, [2, 2])), None),
        (helper.make_map_type_proto(7, models.optional(models.tensor(1))), "values cannot be optional"),
    ],
)
def test_types_that_no_value_has(proto: onnx.TypeProto, text: str | None) -> None:
    broken = models.model({"x": proto}, {}, [])
    if text is None:  # the shape inside a map means nothing: its values are scalars
        assert schema_of(broken, source="m").inputs
    else:
        with pytest.raises(ModelFormatError, match=f"m: 'x'.*{text}"):
            schema_of(broken, source="m")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is empty"),
        (b"\x08\x07", "cut short"),
        (b"garbage, but not short", "check that the file was copied completely"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"PK\x03\x04rest", "ZIP archive"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"\x80\x04\x95", "pickle"),
        (b"<html>404</html>", "HTML"),
        (b"age-encryption.org/v1\n", "encrypted"),
        (b"\x18\x00\x00\x00ORTM....", "an .ort file"),
        (bytes(64), "not an ONNX model"),
        (b"\xff" * 64, "not an ONNX model"),
    ],
)
def test_what_is_no_model_is_named(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFormatError, match=text) as caught:
        read_schema(path)
    assert str(path) in str(caught.value)


def test_no_prefix_of_a_model_passes_as_a_model() -> None:
    whole = models.identity().SerializeToString()
    accepted = []
    for length in range(len(whole)):
        try:
            parse_model(whole[:length], source="m")
        except ModelFormatError:
            continue
        accepted.append(length)
    # The opsets come last: a cut just before the second one leaves a smaller, but whole, model.
    assert all(
        parse_model(whole[:length], source="m").graph == models.identity().graph for length in accepted
    )
    assert len(accepted) <= 1


def test_external_locations_of_functions_and_sparse_tensors() -> None:
    proto = models.with_external_data("a.bin")
    constant = helper.make_node("Constant", [], ["c"], value=models.external_weight("c", 1, "b.bin"))
    proto.functions.append(
        helper.make_function("d", "f", [], ["c"], [constant], [helper.make_opsetid("", 21)])
    )
    sparse = onnx.SparseTensorProto(values=models.external_weight("v", 1, "c.bin"), dims=[2])
    proto.graph.sparse_initializer.append(sparse)
    attribute = helper.make_node("Constant", [], ["s"])
    attribute.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse)
    proto.graph.node.append(attribute)
    training = onnx.TrainingInfoProto()
    training.algorithm.initializer.append(models.external_weight("t", 1, "d.bin"))
    proto.training_info.append(training)
    assert external_locations(proto) == ("a.bin", "b.bin", "c.bin", "d.bin")


def test_operators_of_subgraphs_are_listed() -> None:
    inner = helper.make_graph([helper.make_node("Loop", ["m"], [], body=onnx.GraphProto())], "b", [], [])
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=onnx.GraphProto())
    custom = helper.make_node("Foo", ["y"], ["z"], domain="com.example")
    proto = models.model({"x": models.tensor(9, ())}, {"z": models.tensor(1)}, [node, custom])
    assert operators(proto) == {("", "If"), ("", "Loop"), ("com.example", "Foo")}


def test_model_info_has_the_documented_form() -> None:
    proto = models.model(
        {
            "image": models.tensor(1, ["batch", 8, None]),
            "text": models.tensor(8, None),
            "extra": models.optional(models.tensor(TensorProto.BFLOAT16, [])),
        },
        {"scores": models.sequence(models.mapping(8, 1))},
        [],
    )
    assert model_info(schema_of(proto, source="m")) == {
        "inputs": {
            "image": {"shape": ["batch", 8, None], "type": "float32"},
            "text": {"shape": None, "type": "string"},
            "extra": {"type": "optional", "element": {"shape": [], "type": "bfloat16"}, "optional": True},
        },
        "outputs": {
            "scores": {
                "type": "sequence",
                "element": {"type": "map", "key": "string", "value": {"shape": [], "type": "float32"}},
            }
        },
    }
