"""Values as JSON documents."""

from __future__ import annotations

import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from confonnx.errors import ConfigurationError, InvalidInputError
from confonnx.models.documents import format_json, parse_json, read_json, write_json
from confonnx.oip.values import Value
from tests.support.onnx_backend import same_bits


def strings(*texts: str) -> npt.NDArray[np.object_]:
    return np.array(texts, dtype=object)


VALUES: list[Value] = [
    np.array([[0.1, -0.0], [np.nan, np.inf]], np.float32),
    np.array(-np.inf, np.float64),
    np.array([1e300, 5e-324]),
    np.array([65504, 6e-8], np.float16),
    np.array([0.1, 3e38], ml_dtypes.bfloat16),
    np.array([2**-127, 2**127], np.float64).astype(ml_dtypes.float8_e8m0fnu),
    np.array([-8, 7], np.int8).astype(ml_dtypes.int4),
    np.array([0, 3], np.uint8).astype(ml_dtypes.uint2),
    np.array([2**64 - 1], np.uint64),
    np.array([-(2**63)], np.int64),
    np.array([[True], [False]]),
    np.array([1 + 2j, complex(math.inf, -0.0)], np.complex64),
    np.array(1j, np.complex128),
    strings("", "é", "a\0b", "NaN", "\u2028"),
    np.zeros((2, 0, 3), np.int32),
    np.zeros((0, 2), np.complex64),
    np.array([], dtype=object),
    [np.array([1], np.int64), np.array([[2]], np.int64)],
    [],
    [{"a": 0.5, "b": 0.25}, {}],
    {1: 0.1, -5: 2.0},
    {"k": "text", "nul\0": "end\0"},
    {"large": 3.4028235677973366e38, "none": math.nan},
    {1: [np.array([1.0], np.float32)], 2: []},
    None,
]


@pytest.mark.parametrize(
    "value", VALUES, ids=lambda value: str(getattr(value, "dtype", type(value).__name__))
)
def test_what_is_written_reads_back_bit_for_bit(value: Value, tmp_path: Path) -> None:
    path = tmp_path / "output.json"
    write_json(path, {"y": value})
    json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)  # plain JSON: no NaN or Infinity in it
    assert same_bits(read_json(path)["y"], value)


def test_every_bit_pattern_of_the_small_types_survives() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        values = bits.view(dtype)
        back = parse_json(format_json({"x": values}), source="x")["x"]
        assert isinstance(back, np.ndarray)
        with np.errstate(invalid="ignore"):  # signalling NaNs
            number = ~np.isnan(values)
        assert np.array_equal(back[number].view(np.uint16), bits[number])
        assert np.isnan(back[~number]).all()


def test_the_documented_form() -> None:
    values: dict[str, Value] = {
        "image": np.array([[0.0, 1.5], [2.0, np.nan]], np.float32),
        "classes": strings("a", "b"),
    }
    text = format_json(values)
    assert text.startswith('{\n  "classes"'), "names are sorted"
    assert json.loads(text) == {
        "image": {"type": "float32", "values": [[0.0, 1.5], [2.0, "NaN"]]},
        "classes": {"type": "string", "values": ["a", "b"]},
    }
    assert format_json({}) == "{\n\n}\n"
    assert parse_json(format_json({}), source="x") == {}


def test_what_is_accepted_beyond_what_is_written() -> None:
    text = (
        '{"a": {"type": "str", "values": "x"}, "b": {"type": "float32", "values": [1, NaN, -Infinity]},'
        ' "c": {"type": "int8", "values": [1, 2, 3, 4], "shape": [2, 2]},'
        ' "d": {"type": "optional", "values": {"type": "bool", "values": true}}}'
    )
    values = parse_json(text, source="x")
    assert same_bits(values["a"], np.array("x", dtype=object))
    assert same_bits(values["b"], np.array([1, np.nan, -np.inf], np.float32))
    assert same_bits(values["c"], np.array([[1, 2], [3, 4]], np.int8))
    assert same_bits(values["d"], np.array(True))


def test_map_values_that_float32_cannot_hold_stay_float64() -> None:
    assert json.loads(format_json({"m": {"a": 0.1}}))["m"]["values"]["type"] == "float64"
    assert json.loads(format_json({"m": {"a": 0.5}}))["m"]["values"]["type"] == "float32"


def nested(depth: int) -> str:
    inner = '{"type": "int64", "values": 1}'
    for _ in range(depth - 1):
        inner = f'{{"type": "sequence", "values": [{inner}]}}'
    return f'{{"x": {inner}}}'


def test_nesting_is_bounded() -> None:
    assert parse_json(nested(16), source="x")
    with pytest.raises(InvalidInputError, match="nested more than 16 deep"):
        parse_json(nested(17), source="x")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "f.json is not JSON"),
        ("[" * 100_000, "f.json is not JSON"),
        ('{"x": ' + "1" * 5000 + "}", "f.json is not JSON"),
        ("\xff", "f.json is not JSON"),
        ('{"x": 1, "x": 2}', "member 'x' is there twice"),
        ("[]", "expected an object with one member for each input, found a list"),
        ('{"x": [1, 2]}', "f.json: 'x': expected .* found a list"),
        ('{"x": null}', "found null"),
        ('{"x": {"type": "float32"}}', "found an object with members type"),
        ('{"x": {}}', "members none"),
        ('{"x": {"type": "float33", "values": 1}}', "'x': unknown type 'float33'; expected sequence, map"),
        ('{"x": {"type": ["int8"], "values": 1}}', "unknown type"),
        ('{"x": {"type": "int8", "values": [300]}}', "'x': an integer is out of the range of INT8"),
        ('{"x": {"type": "int8", "values": [1.5]}}', "'x': expected INT8"),
        ('{"x": {"type": "float32", "values": [1e39]}}', "'x': a number has no counterpart in FP32"),
        ('{"x": {"type": "float32", "values": ["nan"]}}', "'x': expected FP32"),
        ('{"x": {"type": "float32", "values": [[1], [1, 2]]}}', "'x': "),
        ('{"x": {"type": "bool", "values": [0, 1]}}', "'x': expected BOOL"),
        ('{"x": {"type": "string", "values": [1]}}', "'x': expected BYTES"),
        ('{"x": {"type": "int8", "values": null}}', "'x': expected INT8"),
        ('{"x": {"type": "int8", "values": {}}}', "'x': expected INT8"),
        ('{"x": {"type": "complex64", "values": [1, 2, 3]}}', "a complex number is a pair"),
        ('{"x": {"type": "complex64", "values": 1}}', "a complex number is a pair"),
        ('{"x": {"type": "int8", "values": [1], "shape": [2]}}', r"shape \[2\] means 2 elements, .* has 1"),
        ('{"x": {"type": "int8", "values": [1], "shape": [-1]}}', "numbers of 0 or more"),
        ('{"x": {"type": "int8", "values": [1], "shape": [true]}}', "numbers of 0 or more"),
        ('{"x": {"type": "int8", "values": [1], "shape": 1}}', "shape is a list, found a number"),
        ('{"x": {"type": "sequence", "values": 1}}', "are a list of entries, found a number"),
        ('{"x": {"type": "sequence", "values": [1]}}', r"'x'\[0\]: expected"),
        ('{"x": {"type": "map", "values": {"type": "int8", "values": [1]}}}', "'x'.keys: expected"),
        (
            '{"x": {"type": "map", "keys": {"type": "int8", "values": [1]},'
            ' "values": {"type": "int8", "values": [1]}}}',
            "keys of a map are a list of int64 or string",
        ),
        (
            '{"x": {"type": "map", "keys": {"type": "int64", "values": [1, 1]},'
            ' "values": {"type": "int8", "values": [1, 2]}}}',
            "there twice",
        ),
        (
            '{"x": {"type": "map", "keys": {"type": "int64", "values": [1]},'
            ' "values": {"type": "int8", "values": [1, 2]}}}',
            "must have shape",
        ),
    ],
)
def test_errors_name_file_tensor_and_problem(text: str, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem) as caught:
        parse_json(text.encode("latin-1"), source="f.json")
    assert str(caught.value).startswith("f.json")


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*none.json: No such file"):
        read_json(tmp_path / "none.json")
    with pytest.raises(ConfigurationError, match=r"cannot write .*/none/out.json: No such file"):
        write_json(tmp_path / "none" / "out.json", {})
    with pytest.raises(ConfigurationError, match="cannot write"):
        write_json(tmp_path, {})


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"
    write_json(path, {})
    before = path.read_bytes()

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ConfigurationError, match="No space left"):
        write_json(path, {"x": np.zeros(3)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.json"]


def test_a_device_is_written_directly() -> None:
    write_json(Path("/dev/null"), {"x": np.zeros(3)})
    assert not Path("/dev/null").is_file()
