"""Predictions as Open Inference Protocol messages, held against the attested schema both ways. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

import numpy as np

from confonnx.attestation.statement import ModelDescription
from confonnx.errors import InvalidInputError, OipError
from confonnx.http.fields import Fields
from confonnx.ohttp import bhttp
from confonnx.ohttp.hpke import Buffer
from confonnx.oip import binary, messages
from confonnx.oip.datatypes import (
    MapType,
    OptionalType,
    SequenceType,
    TensorType,
    ValueSpec,
    ValueType,
)
from confonnx.oip.layout import Layout, is_plain, layout_of
from confonnx.oip.limits import OipLimits
from confonnx.oip.values import Value, check_inputs

# The whole answer was bounded before it was read, and comes from the attested server: bounds of the parser
# suffice.
_LIMITS = OipLimits()

_Description: TypeAlias = tuple[str, np.dtype[np.generic], tuple[int, ...]]
"""Name, dtype and shape of an array."""


@dataclass(slots=True)
class _AnswerMemory:
    """The layout of the last answer to a question, for the answers to others like it. Mutable."""

    layout: Layout | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One prediction: what to send, and `read` for what comes back."""

    model: ModelDescription
    wanted: tuple[ValueSpec, ...]
    fields: Fields
    """The header fields that describe ``body``."""
    body: tuple[Buffer, ...]
    _memory: _AnswerMemory = field(default_factory=_AnswerMemory, repr=False)

    @property
    def header_length(self) -> int | None:
        """Bytes of JSON with which ``body`` begins, where that is not all of it."""
        return binary.parse_header_length(dict(self.fields).get(binary.HEADER_LENGTH_FIELD))

    def like(self, body: tuple[Buffer, ...]) -> Question:
        """The same question about other tensors, of the same shapes."""
        return Question(self.model, self.wanted, self.fields, body, self._memory)

    def read(self, response: bhttp.Response) -> dict[str, Value]:
        """The outputs in a sealed answer. Raises as :meth:`read_message`."""
        length = binary.parse_header_length(response.field(binary.HEADER_LENGTH_FIELD))
        return self.read_message(response.body, header_length=length)

    def read_message(self, message: Buffer, *, header_length: int | None) -> dict[str, Value]:
        """The outputs by name. Arrays are read-only, and views of the answer where that needs no copy.

        Raises OipError unless the answer is for this question: its model, the outputs wanted and no others,
        each of the datatype and rank that was attested.
        """
        known = self._memory.layout
        if known is not None and known.header_length == header_length and known.matches(message):
            arrays = known.read(memoryview(message).toreadonly())
            return {spec.name: arrays[spec.name] for spec in self.wanted}
        answer = binary.parse_infer_response(message, header_length=header_length, limits=_LIMITS)
        self._check(answer)
        if header_length:
            self._memory.layout = layout_of(answer.outputs, message, header_length=header_length)
        values = {output.name: output.value for output in answer.outputs}
        return {spec.name: values[spec.name] for spec in self.wanted}

    def _check(self, answer: messages.InferResponse) -> None:
        if answer.id is not None:
            raise OipError("the answer is for another request: it has an id, and none was sent")
        if answer.model_name != self.model.name or answer.model_version not in (None, self.model.version):
            raise OipError(
                f"the answer is from another model: expected {self.model.name!r} version "
                f"{self.model.version!r}, found {answer.model_name!r} version {answer.model_version!r}"
            )
        found = {output.name: output for output in answer.outputs}
        if found.keys() != {spec.name for spec in self.wanted}:
            raise OipError(f"expected the outputs {_names(self.wanted)}, found {sorted(found)}")
        for spec in self.wanted:
            if not _fits(found[spec.name].type, spec.type):
                raise OipError(
                    f"output {spec.name!r}: expected {spec.type}, as attested, found {found[spec.name].type}"
                )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, and what makes another one the same but for its tensors."""

    model: ModelDescription
    outputs: Sequence[str] | None
    arrays: list[_Description]
    question: Question


class Asker:
    """Asks one client's questions. Mutable: it remembers the last one, whose JSON serves the next if that
    differs in its tensors alone; threads may share it.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self._last: _Asked | None = None

    def ask(
        self, model: ModelDescription, inputs: Mapping[str, object], *, outputs: Sequence[str] | None
    ) -> Question:
        """As :func:`ask`."""
        last = self._last
        if last is not None and last.model is model and last.outputs == outputs:
            tensors = _like(last, inputs)
            if tensors is not None:
                return last.question.like((last.question.body[0], *tensors))
        question = ask(model, inputs, outputs=outputs)
        arrays = _described(inputs, model, question)
        if arrays is not None:
            chosen = None if outputs is None else list(outputs)
            self._last = _Asked(model, chosen, arrays, question.like(question.body[:1]))  # no tensor is kept
        return question


def ask(model: ModelDescription, inputs: Mapping[str, object], *, outputs: Sequence[str] | None) -> Question:
    """The question to ``model``; ``outputs`` None means all of them.

    It has no id: a sealed answer opens for its own request alone. So questions about tensors of the same
    shapes have the same JSON, which a server that knows it need not parse.

    Raises InvalidInputError for inputs that are missing, extra or do not fit, and for outputs that the model
    lacks.
    """
    wanted = model.outputs if outputs is None else _chosen(model, outputs)
    values = check_inputs(inputs, model.inputs)
    encoded = binary.encode_infer_request(
        messages.InferRequest(
            inputs=tuple(
                messages.InferInput(spec.name, spec.type, values[spec.name])
                for spec in model.inputs
                if spec.name in values
            ),
            outputs=() if outputs is None else tuple(messages.RequestedOutput(spec.name) for spec in wanted),
        )
    )
    fields: Fields = (("content-type", encoded.content_type),)
    if encoded.header_length is not None:
        fields = (*fields, (binary.HEADER_LENGTH_FIELD, str(encoded.header_length)))
    return Question(model, wanted, fields, tuple(encoded.parts))


def _described(
    inputs: Mapping[str, object], model: ModelDescription, question: Question
) -> list[_Description] | None:
    """What each input is, in the order of the message, where its wire form is its memory."""
    described = []
    for spec in model.inputs:
        value = inputs.get(spec.name)
        if not (isinstance(spec.type, TensorType) and is_plain(spec.type) and isinstance(value, np.ndarray)):
            return None
        if value.dtype != spec.type.datatype.numpy_dtype or not value.size:
            return None
        described.append((spec.name, value.dtype, value.shape))
    return described if len(question.body) == 1 + len(described) else None


def _like(last: _Asked, inputs: Mapping[str, object]) -> list[Buffer] | None:
    """The bytes of ``inputs`` where they are what those of the last question were."""
    tensors: list[Buffer] = []
    for name, dtype, shape in last.arrays:
        value = inputs.get(name)
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
            return None
        if not value.flags.c_contiguous:
            return None
        tensors.append(value.data.cast("B"))
    return tensors if len(inputs) == len(tensors) else None


def _chosen(model: ModelDescription, outputs: Sequence[str]) -> tuple[ValueSpec, ...]:
    if isinstance(outputs, str):
        raise InvalidInputError(f"outputs must be a list of names, found the string {outputs!r}")
    specs = {spec.name: spec for spec in model.outputs}
    if unknown := [name for name in outputs if name not in specs]:
        raise InvalidInputError(
            f"model {model.name!r} has no output {', '.join(map(repr, unknown))}; it has "
            f"{_names(model.outputs)}"
        )
    if not outputs or len(set(outputs)) != len(outputs):
        raise InvalidInputError(f"outputs must name at least one output, each once, found {list(outputs)}")
    return tuple(specs[name] for name in outputs)


def _fits(found: ValueType, attested: ValueType) -> bool:
    """Whether a value that came has the attested datatypes and ranks.

    Sizes are the model's own affair: onnxruntime, too, only warns when an output has another than declared.
    """
    match attested:
        case TensorType(datatype, shape):
            return (
                isinstance(found, TensorType)
                and found.datatype is datatype
                and (shape is None or found.shape is None or len(found.shape) == len(shape))
            )
        case SequenceType(element):
            return isinstance(found, SequenceType) and _fits(found.element, element)
        case OptionalType(element):
            return isinstance(found, OptionalType) and _fits(found.element, element)
        case MapType(key, value):
            return isinstance(found, MapType) and found.key is key and _fits(found.value, value)
        case _:
            assert_never(attested)


def _names(specs: Sequence[ValueSpec]) -> str:
    return ", ".join(repr(spec.name) for spec in specs)
