"""Values as .npz archives and TensorProto files."""

from __future__ import annotations

import io
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from confonnx.errors import ConfigurationError, InvalidInputError
from confonnx.models.schema import ModelSchema
from confonnx.models.tensor_files import read_npz, read_pb, write_npz, write_pb
from confonnx.models.test_inputs import create_test_inputs
from confonnx.oip.datatypes import Datatype, OptionalType, SequenceType, TensorType, ValueSpec
from confonnx.oip.values import Value
from tests.support import onnx_models as models
from tests.support.onnx_backend import same_bits

SPECS = tuple(
    ValueSpec(f"{datatype.name.lower()}_{len(shape)}", TensorType(datatype, shape))
    for datatype in Datatype
    for shape in ((), (2, 3), (0, 2))
)
TENSORS = create_test_inputs(ModelSchema(SPECS, (), 10, (), ""), seed=5)


def test_an_archive_keeps_every_type(tmp_path: Path) -> None:
    write_npz(tmp_path / "x.npz", TENSORS)
    back = read_npz(tmp_path / "x.npz")
    assert set(back) == set(TENSORS)
    assert [name for name in back if not same_bits(back[name], TENSORS[name])] == []


def test_an_archive_of_numpy_reads_and_ours_reads_with_numpy(tmp_path: Path) -> None:
    np.savez(tmp_path / "numpy.npz", image=np.ones(2, np.float32), text=np.array(["a", "bé"]))
    values = read_npz(tmp_path / "numpy.npz")
    assert same_bits(values["image"], np.ones(2, np.float32))
    assert same_bits(values["text"], np.array(["a", "bé"], dtype=object))
    write_npz(tmp_path / "ours.npz", values)
    with np.load(tmp_path / "ours.npz") as archive:
        assert archive.files == ["image", "text"]
        assert archive["image"].tolist() == [1, 1]


@pytest.mark.parametrize("value", [[np.zeros(1)], {"a": 1.0}, None])
def test_an_archive_takes_tensors_only(tmp_path: Path, value: Value) -> None:
    with pytest.raises(ConfigurationError, match=r"'x' is no tensor, and .npz holds nothing else; use JSON"):
        write_npz(tmp_path / "x.npz", {"x": value})


def test_an_archive_refuses_a_string_that_numpy_would_cut(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ends in NUL"):
        write_npz(tmp_path / "x.npz", {"x": np.array(["a\0"], dtype=object)})


def archive(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **{name: np.asarray(array) for name, array in arrays.items()})
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is not an .npz archive"),
        (b"PK\x03\x04 and so on", "is not an .npz archive"),
        (archive(x=[1.0])[:-30], "is not an .npz archive"),
        (archive(x=np.array([object()])), "is not an .npz archive"),
        (archive(x=np.zeros(2, "V2")), r"'x' holds raw bytes \(\|V2\) without their type"),
        (archive(x=np.zeros(2, "M8[s]")), "'x': numpy dtype datetime64.* has no counterpart"),
        (archive(x=np.zeros(2, "V2"), __types__="{"), "__types__ is not a JSON object"),
        (archive(x=np.zeros(2, "V2"), __types__='{"x": "float99"}'), "__types__ is not a JSON object"),
        (archive(x=np.zeros(2, "V2"), __types__="[]"), "__types__ is not a JSON object"),
        (archive(x=np.zeros(2, "V4"), __types__='{"x": "int4"}'), "says int4, but elements of 4 bytes"),
        (archive(x=np.array([b"\xff"])), "'x': element 0 is not valid UTF-8"),
    ],
)
def test_broken_archives_are_named(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match=problem) as caught:
        read_npz(path)
    assert str(path) in str(caught.value)


def test_an_npy_file_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(InvalidInputError, match=r"is not an .npz archive"):
        read_npz(tmp_path / "x.npy")


def test_tensor_protos_keep_every_type(tmp_path: Path) -> None:
    paths = write_pb(tmp_path / "out", TENSORS)
    back = read_pb(paths, ())
    assert [name for name in TENSORS if not same_bits(back[name], TENSORS[name])] == []


def test_what_onnx_itself_reads(tmp_path: Path) -> None:
    value = np.array([1.5, 2], ml_dtypes.bfloat16)
    (path,) = write_pb(tmp_path, {"y": value})
    proto = onnx.TensorProto.FromString(path.read_bytes())
    assert (path.name, proto.name, proto.data_type) == ("y.pb", "y", onnx.TensorProto.BFLOAT16)
    assert np.array_equal(numpy_helper.to_array(proto), value)


def test_sequences_and_optionals_as_the_model_declares_them(tmp_path: Path) -> None:
    element = TensorType(Datatype.FP32, None)
    specs = (
        ValueSpec("s", SequenceType(element)),
        ValueSpec("o", OptionalType(element)),
        ValueSpec("p", OptionalType(SequenceType(element))),
        ValueSpec("n", OptionalType(element)),
    )
    one = np.ones(2, np.float32)
    values: dict[str, Value] = {"s": [one, one[:1]], "o": one, "p": [one], "n": None}
    paths = write_pb(tmp_path, values)
    back = read_pb(paths, [path.stem for path in paths], specs)
    assert all(same_bits(back[name], value) for name, value in values.items())
    wrapped = numpy_helper.from_optional(one, "o"), numpy_helper.from_optional([one], "p")
    for path, proto in zip(("a.pb", "b.pb"), wrapped, strict=True):
        (tmp_path / path).write_bytes(proto.SerializeToString())
    again = read_pb([tmp_path / "a.pb", tmp_path / "b.pb"], ["o", "p"], specs)
    assert all(same_bits(again[name], values[name]) for name in ("o", "p"))


def test_names_come_from_the_caller_or_the_file(tmp_path: Path) -> None:
    paths = write_pb(tmp_path, {"y": np.zeros(1)})
    assert list(read_pb(paths, [])) == ["y"]
    assert list(read_pb(paths, ["x"])) == ["x"]
    with pytest.raises(ConfigurationError, match=r"1 .pb files but 2 names"):
        read_pb(paths, ["a", "b"])
    with pytest.raises(ConfigurationError, match=r"two .pb files are for input 'y'"):
        read_pb([*paths, *paths], [])
    (tmp_path / "anonymous.pb").write_bytes(numpy_helper.from_array(np.zeros(1)).SerializeToString())
    with pytest.raises(ConfigurationError, match=r"has no name in it; give the names"):
        read_pb([tmp_path / "anonymous.pb"], [])


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff",
        b"",
        onnx.TensorProto(name="x", data_type=1, dims=[3], raw_data=b"123").SerializeToString(),
        onnx.TensorProto(name="x", data_type=99, dims=[1], raw_data=b"1").SerializeToString(),
        onnx.TensorProto(name="x", data_type=8, dims=[1], string_data=[b"\xff"]).SerializeToString(),
        models.external_weight("x", 1, "/etc/hostname").SerializeToString(),
        numpy_helper.from_list([np.zeros(2)], "x").SerializeToString(),
        models.identity().SerializeToString(),
    ],
)
def test_files_that_are_no_tensor_are_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.pb"
    path.write_bytes(data)
    with pytest.raises(InvalidInputError) as caught:
        read_pb([path], ["x"])
    assert str(path) in str(caught.value)


def test_a_tensor_is_not_taken_for_an_empty_sequence(tmp_path: Path) -> None:
    paths = write_pb(tmp_path, {"s": np.zeros(2, np.float32)})
    spec = ValueSpec("s", SequenceType(TensorType(Datatype.FP32)))
    with pytest.raises(InvalidInputError, match="is not an ONNX SequenceProto"):
        read_pb(paths, ["s"], [spec])


def test_outputs_that_have_no_pb_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'m' holds a map"):
        write_pb(tmp_path, {"m": {"a": 1.0}})
    with pytest.raises(ConfigurationError, match="'s' holds a map"):
        write_pb(tmp_path, {"s": [{"a": 1.0}]})
    with pytest.raises(ConfigurationError, match="same file name"):
        write_pb(tmp_path, {"a/b": np.zeros(1), "a:b": np.zeros(1)})


def test_output_names_cannot_leave_the_directory(tmp_path: Path) -> None:
    paths = write_pb(tmp_path / "out", {"../../evil": np.zeros(1), "..": np.zeros(1)})
    assert all(path.resolve().parent == (tmp_path / "out").resolve() for path in paths)
    assert {path.name for path in paths} == {"_.._evil.pb", "_.pb"}


def test_an_output_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot make directory"):
        write_pb(tmp_path / "file" / "out", {"y": np.zeros(1)})
