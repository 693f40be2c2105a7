"""Predictions as Open Inference Protocol messages, held against the attested schema both ways. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

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
from confonnx.oip.limits import OipLimits
from confonnx.oip.values import Value, check_inputs

# The whole answer was bounded before it was read, and comes from the attested server: bounds of the parser
# suffice.
_LIMITS = OipLimits()


@dataclass(frozen=True, slots=True)
class Question:
    """One prediction: what to send, and `read` for what comes back."""

    model: ModelDescription
    wanted: tuple[ValueSpec, ...]
    request_id: str | None
    content_type: str
    header_length: int | None
    body: tuple[Buffer, ...]

    @property
    def fields(self) -> Fields:
        """The header fields that describe ``body``."""
        fields = (("content-type", self.content_type),)
        if self.header_length is None:
            return fields
        return (*fields, (binary.HEADER_LENGTH_FIELD, str(self.header_length)))

    def read(self, response: bhttp.Response) -> dict[str, Value]:
        """The outputs in a sealed answer. Raises as :meth:`read_message`."""
        length = binary.parse_header_length(response.field(binary.HEADER_LENGTH_FIELD))
        return self.read_message(response.body, header_length=length)

    def read_message(self, message: Buffer, *, header_length: int | None) -> dict[str, Value]:
        """The outputs by name. Arrays are read-only, and views of the answer where that needs no copy.

        Raises OipError unless the answer is for this question: its id, its model, the outputs wanted and no
        others, each of the datatype and rank that was attested.
        """
        answer = binary.parse_infer_response(message, header_length=header_length, limits=_LIMITS)
        if answer.id != self.request_id:
            raise OipError("the answer is for another request: its id is not the one that was sent")
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
        return {spec.name: found[spec.name].value for spec in self.wanted}


def ask(
    model: ModelDescription,
    inputs: Mapping[str, object],
    *,
    outputs: Sequence[str] | None,
    request_id: str | None = None,
) -> Question:
    """The question to ``model``; ``outputs`` None means all of them.

    A sealed answer opens for its own request alone, so it needs no ``request_id``; without one, requests for
    tensors of the same shapes have the same JSON, which a server that knows it need not parse.

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
            id=request_id,
        )
    )
    return Question(
        model, wanted, request_id, encoded.content_type, encoded.header_length, tuple(encoded.parts)
    )


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
