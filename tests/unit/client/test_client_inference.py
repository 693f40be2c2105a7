"""Values that are no tensors: what comes back is held against the attested type all the way down."""

from __future__ import annotations

import numpy as np
import pytest

from confonnx import Client, errors
from confonnx.attestation.statement import ModelDescription
from confonnx.oip.datatypes import (
    Datatype,
    MapType,
    OptionalType,
    SequenceType,
    TensorType,
    ValueSpec,
    ValueType,
)
from confonnx.oip.values import Value
from tests.support.fake_server import BASE_URL, FakeModel, FakeServer, policy

SCALAR = TensorType(Datatype.FP32, ())
VECTOR = TensorType(Datatype.FP32, ("n",))
PROBABILITIES = SequenceType(MapType(Datatype.BYTES, SCALAR))


def asked(attested: ValueType, answered: ValueType, value: Value) -> Value:
    """What a client makes of ``value``, sent as ``answered`` where ``attested`` was attested."""
    described = ModelDescription("m", "1", "aa" * 32, (), (ValueSpec("y", attested),))
    sent = ModelDescription("m", "1", "aa" * 32, (), (ValueSpec("y", answered),))
    server = FakeServer(models=[FakeModel(described, lambda _: {"y": value})])
    with Client(BASE_URL, transport=server, policy=policy()) as client:
        client.verify()
        server.models = [FakeModel(sent, lambda _: {"y": value})]
        return client.predict({})["y"]


@pytest.mark.parametrize(
    ("attested", "value"),
    [
        (PROBABILITIES, [{"cat": 0.25, "dog": 0.75}, {"cat": 1.0}]),
        (PROBABILITIES, []),
        (MapType(Datatype.INT64, SCALAR), {7: 0.5}),
        (OptionalType(VECTOR), None),
        (OptionalType(SequenceType(VECTOR)), []),
    ],
)
def test_values_arrive(attested: ValueType, value: Value) -> None:
    assert asked(attested, attested, value) == value


def test_sequences_of_tensors_arrive() -> None:
    arrays: list[Value] = [np.arange(3, dtype=np.float32), np.zeros(0, np.float32)]
    found = asked(SequenceType(VECTOR), SequenceType(VECTOR), arrays)
    assert isinstance(found, list)
    assert [np.asarray(item).tolist() for item in found] == [[0, 1, 2], []]


def test_sizes_and_unknown_ranks_are_the_models_affair() -> None:
    value = np.zeros((2, 3), np.float32)
    for attested in (TensorType(Datatype.FP32), TensorType(Datatype.FP32, (1, 1))):
        assert np.asarray(asked(attested, TensorType(Datatype.FP32, (2, 3)), value)).shape == (2, 3)


@pytest.mark.parametrize(
    ("attested", "answered", "value"),
    [
        (VECTOR, SequenceType(VECTOR), []),
        (SequenceType(VECTOR), VECTOR, np.zeros(1, np.float32)),
        (SequenceType(VECTOR), SequenceType(TensorType(Datatype.FP64, ("n",))), []),
        (PROBABILITIES, SequenceType(MapType(Datatype.INT64, SCALAR)), []),
        (PROBABILITIES, SequenceType(MapType(Datatype.BYTES, TensorType(Datatype.FP64, ()))), []),
        (MapType(Datatype.INT64, SCALAR), SequenceType(VECTOR), []),
        (OptionalType(VECTOR), VECTOR, np.zeros(1, np.float32)),
        (OptionalType(VECTOR), OptionalType(TensorType(Datatype.FP64, ("n",))), None),
    ],
)
def test_other_types_are_refused(attested: ValueType, answered: ValueType, value: Value) -> None:
    with pytest.raises(errors.OipError, match=r"output 'y': expected .* as attested"):
        asked(attested, answered, value)


def test_arrays_of_an_answer_are_read_only() -> None:
    found = asked(VECTOR, VECTOR, np.zeros(4, np.float32))
    assert isinstance(found, np.ndarray)
    assert not found.flags.writeable
