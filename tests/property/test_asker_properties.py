"""A client that remembers its last question asks, and reads, as one that does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from confonnx.attestation.statement import ModelDescription
from confonnx.client.inference import Asker, Question, ask
from confonnx.errors import InvalidInputError
from confonnx.ohttp import bhttp
from confonnx.oip import binary, messages
from confonnx.oip.datatypes import Array, Datatype, TensorType, ValueSpec
from confonnx.oip.values import Value

MATRIX = TensorType(Datatype.FP32, ("n", 3))
FLAGS = TensorType(Datatype.BOOL, (None,))
MODELS = [
    ModelDescription("one", "1", "ab" * 32, (ValueSpec("x", MATRIX),), (ValueSpec("y", MATRIX),)),
    ModelDescription(
        "two",
        "1",
        "cd" * 32,
        (ValueSpec("x", MATRIX), ValueSpec("z", MATRIX, optional=True)),
        (ValueSpec("y", MATRIX), ValueSpec("w", FLAGS)),
    ),
]
ARRAYS = st.builds(
    lambda rows, dtype, order, number: np.full((rows, 3), number).astype(dtype, order=order),
    rows=st.integers(0, 3),
    dtype=st.sampled_from(["f4", "f4", "f4", ">f4", "f8", "i4"]),
    order=st.sampled_from("CCF"),
    number=st.integers(0, 100),
)
VALUES = st.one_of(ARRAYS, ARRAYS.map(lambda array: array.tolist()), st.just("text"))
INPUTS = st.dictionaries(st.sampled_from(["x", "x", "z", "other"]), VALUES, max_size=3)
OUTPUTS = st.sampled_from([None, ["y"], ("y",), ["w", "y"], ["none"], "y"])
CALLS = st.lists(st.tuples(st.sampled_from(MODELS), INPUTS, OUTPUTS), min_size=1, max_size=4)


def wire(question: Question) -> tuple[object, ...]:
    return question.model.name, question.wanted, question.fields, b"".join(question.body)


def said(asking: Callable[..., Question], *args: object) -> tuple[object, ...] | str:
    try:
        return wire(asking(*args[:2], outputs=args[2]))
    except InvalidInputError as error:
        return str(error)


@settings(deadline=None)
@given(calls=CALLS, order=st.lists(st.integers(0, 3), max_size=10))
def test_questions_are_the_same(
    calls: list[tuple[ModelDescription, Mapping[str, object], list[str] | None]], order: list[int]
) -> None:
    asker = Asker()
    for number in order:
        model, inputs, outputs = calls[number % len(calls)]
        expected, found = (said(one, model, inputs, outputs) for one in (ask, asker.ask))
        assert found == expected


def answer_to(question: Question, arrays: Mapping[str, Array]) -> bhttp.Response:
    outputs = tuple(messages.InferOutput(spec.name, spec.type, arrays[spec.name]) for spec in question.wanted)
    model = question.model
    encoded = binary.encode_infer_response(
        messages.InferResponse(model.name, model.version, outputs),
        messages.InferRequest((), parameters={"binary_data_output": True}),
    )
    fields = ((binary.HEADER_LENGTH_FIELD, str(encoded.header_length)),)
    return bhttp.Response(200, fields, bytearray(b"".join(encoded.parts)))


@given(rows=st.lists(st.integers(0, 3), min_size=1, max_size=8), flags=st.booleans())
def test_answers_are_the_same(rows: list[int], flags: bool) -> None:
    asker = Asker()
    model = MODELS[1]
    for number, count in enumerate(rows):
        wanted = None if flags else ["y"]
        question = asker.ask(model, {"x": np.ones((2, 3), np.float32)}, outputs=wanted)
        arrays: dict[str, Array] = {
            "y": np.full((count, 3), number, np.float32),
            "w": np.full(count, number % 2 == 0),
        }
        found: dict[str, Value] = question.read(answer_to(question, arrays))
        assert list(found) == [spec.name for spec in question.wanted]
        for name, value in found.items():
            assert isinstance(value, np.ndarray)
            assert value.dtype == arrays[name].dtype
            assert not value.flags.writeable
            np.testing.assert_array_equal(value, arrays[name])


def test_no_tensor_is_kept() -> None:
    asker = Asker()
    asker.ask(MODELS[0], {"x": np.full((2, 3), 7, np.float32)}, outputs=None)
    assert asker._last is not None
    assert len(asker._last.question.body) == 1
    assert np.float32(7).tobytes() not in bytes(asker._last.question.body[0])
