"""Messages of the protocol as values, and those that are plain JSON as bytes.

The bytes of inference messages are in ``binary``, since they have a binary part. Members that a reader does
not know are ignored, as the protocol has it; parameters that it does not know are kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

import msgspec

from confonnx.errors import OipError
from confonnx.oip.datatypes import Buffer, ValueSpec, ValueType
from confonnx.oip.entries import Parameters
from confonnx.oip.json import decode_json, encode_json
from confonnx.oip.values import Value

T = TypeVar("T")

# What a server of ours announces: Triton's name for the binary parts, then the extensions of this package.
BINARY_EXTENSION = "binary_tensor_data"
DATATYPES_EXTENSION = "confonnx_datatypes"
VALUES_EXTENSION = "confonnx_values"
STREAMS_EXTENSION = "confonnx_streams"
EXTENSIONS = (BINARY_EXTENSION, DATATYPES_EXTENSION, VALUES_EXTENSION, STREAMS_EXTENSION)

PLATFORM = "onnx_onnxv1"


def no_parameters() -> Parameters:
    """None at all, read-only."""
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class InferInput:
    """An input. ``type`` has the actual shape when parsed; ``value`` never shows in a ``repr``."""

    name: str
    type: ValueType
    value: Value = field(repr=False)
    parameters: Parameters = field(default_factory=no_parameters)


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that is wanted; ``binary`` None leaves its form to the request's ``binary_data_output``."""

    name: str
    binary: bool | None = None
    parameters: Parameters = field(default_factory=no_parameters)


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """A request; no ``outputs`` means all of them."""

    inputs: tuple[InferInput, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str | None = None
    parameters: Parameters = field(default_factory=no_parameters)


@dataclass(frozen=True, slots=True, eq=False)
class InferOutput:
    """An output. ``type`` has the actual shape when parsed; ``value`` never shows in a ``repr``."""

    name: str
    type: ValueType
    value: Value = field(repr=False)
    parameters: Parameters = field(default_factory=no_parameters)


@dataclass(frozen=True, slots=True, eq=False)
class InferResponse:
    """A response; ``id`` is the request's."""

    model_name: str
    model_version: str | None
    outputs: tuple[InferOutput, ...]
    id: str | None = None
    parameters: Parameters = field(default_factory=no_parameters)


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """``GET /v2``."""

    name: str
    version: str
    extensions: tuple[str, ...] = EXTENSIONS

    def encode(self) -> bytes:
        """The JSON document."""
        return encode_json({"name": self.name, "version": self.version, "extensions": self.extensions})


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """``GET /v2/models/{name}``; ``versions`` are those that the server has, this one among them."""

    name: str
    inputs: tuple[ValueSpec, ...]
    outputs: tuple[ValueSpec, ...]
    versions: tuple[str, ...] = ()
    platform: str = PLATFORM

    def encode(self) -> bytes:
        """The JSON document."""
        return encode_json(
            {
                "name": self.name,
                "versions": self.versions,
                "platform": self.platform,
                "inputs": [spec.to_json() for spec in self.inputs],
                "outputs": [spec.to_json() for spec in self.outputs],
            }
        )


class _ServerDocument(msgspec.Struct, frozen=True):
    name: str
    version: str
    extensions: tuple[str, ...] = ()


class _ModelDocument(msgspec.Struct, frozen=True):
    name: str
    platform: str
    inputs: list[object]
    outputs: list[object]
    versions: tuple[str, ...] | None = None


class _HealthDocument(msgspec.Struct, frozen=True):
    ready: bool | None = None
    live: bool | None = None


class _ModelsDocument(msgspec.Struct, frozen=True):
    models: tuple[str, ...]


class _ErrorDocument(msgspec.Struct, frozen=True):
    error: str


_server = msgspec.json.Decoder(_ServerDocument)
_model = msgspec.json.Decoder(_ModelDocument)
_health = msgspec.json.Decoder(_HealthDocument)
_models = msgspec.json.Decoder(_ModelsDocument)
_error = msgspec.json.Decoder(_ErrorDocument)


def parse_server_metadata(body: Buffer) -> ServerMetadata:
    """Raises OipError if ``body`` is no such document."""
    document = decode_json(_server, body, "server metadata")
    return ServerMetadata(document.name, document.version, document.extensions)


def parse_model_metadata(body: Buffer) -> ModelMetadata:
    """Raises OipError if ``body`` is no such document."""
    document = decode_json(_model, body, "model metadata")
    return ModelMetadata(
        name=document.name,
        inputs=tuple(ValueSpec.from_json(tensor) for tensor in document.inputs),
        outputs=tuple(ValueSpec.from_json(tensor) for tensor in document.outputs),
        versions=document.versions or (),
        platform=document.platform,
    )


def encode_health(healthy: bool) -> bytes:
    """The answer of ``/v2/health/live`` and ``/v2/health/ready`` alike.

    It has both members: the protocol's prose and its clients do not agree on which of them is read.
    """
    return encode_json({"live": healthy, "ready": healthy})


def encode_model_ready(name: str, *, ready: bool) -> bytes:
    """The answer of ``/v2/models/{name}/ready``."""
    return encode_json({"name": name, "ready": ready})


def parse_health(body: Buffer) -> bool:
    """What either of the two says, ``ready`` before ``live``.

    Raises:
        OipError: neither is there.
    """
    document = decode_json(_health, body, "health document")
    answer = document.live if document.ready is None else document.ready
    if answer is None:
        raise OipError("a health document has neither 'ready' nor 'live'")
    return answer


def encode_model_list(names: Iterable[str]) -> bytes:
    """The answer of ``/v2/models``, which KServe's servers have and the protocol does not."""
    return encode_json({"models": list(names)})


def parse_model_list(body: Buffer) -> tuple[str, ...]:
    """Raises OipError if ``body`` is no such document."""
    return decode_json(_models, body, "model list").models


def encode_error(message: str) -> bytes:
    """The body of every answer with a status of 400 or more."""
    return encode_json({"error": message})


def parse_error(body: Buffer) -> str:
    """Raises OipError if ``body`` is no such document."""
    return decode_json(_error, body, "error document").error
