"""What a model takes and gives, read from its file with ``onnx`` and without its external weights.

A graph input that has an initializer of the same name has a default (ONNX IR, "Graphs"); its spec is
``optional``. So is an input of an optional type: leaving it out passes the empty optional.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from confonnx.errors import ModelFormatError, OipError
from confonnx.models.files import model_file, read_protobuf
from confonnx.oip.datatypes import (
    Datatype,
    MapType,
    OptionalType,
    SequenceType,
    TensorType,
    ValueSpec,
    ValueType,
)

TypeFallback: TypeAlias = Callable[[str], ValueType | None]
"""The type of a graph output that the file itself does not tell; None when nobody knows."""


@dataclass(frozen=True, slots=True)
class ModelSchema:
    """The interface of a model, and what else its header says."""

    inputs: tuple[ValueSpec, ...]
    """In the order of the graph."""
    outputs: tuple[ValueSpec, ...]
    ir_version: int
    opsets: tuple[tuple[str, int], ...]
    """``(domain, version)``; the default domain is written ``ai.onnx``."""
    producer: str
    """Name and version of what wrote the file; may be empty."""


def read_schema(path: Path) -> ModelSchema:
    """The schema of the model at ``path`` (a file, or a directory that holds one).

    Raises ModelFormatError and ModelNotFoundError.
    """
    file = model_file(path)
    return schema_of(parse_model(read_protobuf(file), source=str(file)), source=str(file))


def parse_model(data: bytes, *, source: str) -> onnx.ModelProto:
    """The ONNX protobuf in ``data``. ``source`` names it in errors. Raises ModelFormatError."""
    if not data:
        raise ModelFormatError(f"{source} is empty; expected an ONNX model")
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelFormatError(f"{source} is not an ONNX model, or is cut short: {_guess(data)}") from error
    # protobuf accepts many strings by chance, and a file cut between two fields: these fields every model
    # has.
    if not (model.ir_version and model.HasField("graph") and model.opset_import):
        raise ModelFormatError(f"{source} is not an ONNX model, or is cut short: {_guess(data)}")
    return model


def schema_of(
    model: onnx.ModelProto, *, source: str, fallback: TypeFallback = lambda _name: None
) -> ModelSchema:
    """The schema of a parsed model. Raises ModelFormatError for a type that no value can have."""
    graph = model.graph
    defaults = {tensor.name for tensor in graph.initializer}
    defaults |= {tensor.values.name for tensor in graph.sparse_initializer}
    # Before IR version 4 every initializer had to be listed as an input and was a constant all the same.
    taken = [info for info in graph.input if model.ir_version >= 4 or info.name not in defaults]
    return ModelSchema(
        inputs=tuple(_spec(info, source, fallback, has_default=info.name in defaults) for info in taken),
        outputs=tuple(_spec(info, source, fallback, has_default=False) for info in graph.output),
        ir_version=model.ir_version,
        opsets=tuple((opset.domain or "ai.onnx", opset.version) for opset in model.opset_import),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
    )


def external_locations(model: onnx.ModelProto) -> tuple[str, ...]:
    """The locations of all external data that ``model`` uses, sorted, each once."""
    found = set()
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            locations = [entry.value for entry in tensor.external_data if entry.key == "location"]
            if len(locations) != 1:
                raise ModelFormatError(
                    f"tensor {tensor.name!r} is external data with {len(locations)} locations; expected 1"
                )
            found.add(locations[0])
    return tuple(sorted(found))


def operators(model: onnx.ModelProto) -> frozenset[tuple[str, str]]:
    """Every ``(domain, operator)`` of the model, those in subgraphs and functions too."""
    return frozenset((node.domain, node.op_type) for graph in _graphs(model) for node in graph.node)


def _spec(info: onnx.ValueInfoProto, source: str, fallback: TypeFallback, *, has_default: bool) -> ValueSpec:
    value_type = _value_type(info.type, f"{source}: {info.name!r}")
    if value_type is None:
        value_type = fallback(info.name)
    if value_type is None:
        raise ModelFormatError(
            f"{source}: {info.name!r} declares no type; run onnx.shape_inference on the model"
        )
    return ValueSpec(info.name, value_type, optional=has_default or isinstance(value_type, OptionalType))


def _value_type(proto: onnx.TypeProto, where: str) -> ValueType | None:
    """The type that ``proto`` states; None where it states none."""
    try:
        return _parse_type(proto, where)
    except OipError as error:
        raise ModelFormatError(f"{where} has a type that no value can have: {error}") from error


def _parse_type(proto: onnx.TypeProto, where: str) -> ValueType | None:
    match proto.WhichOneof("value"):
        case "tensor_type":
            return _tensor_type(proto.tensor_type)
        case "sequence_type":
            element = _parse_type(proto.sequence_type.elem_type, where)
            return element and SequenceType(element)
        case "optional_type":
            element = _parse_type(proto.optional_type.elem_type, where)
            return element and OptionalType(element)
        case "map_type":
            value = _parse_type(proto.map_type.value_type, where)
            if isinstance(value, TensorType):
                value = TensorType(value.datatype, ())  # scalars; files often leave the shape out
            return value and MapType(Datatype.from_onnx(proto.map_type.key_type), value)
        case None:
            return None
        case other:
            raise ModelFormatError(f"{where} is a {other}; expected a tensor, sequence, map or optional")


def _tensor_type(proto: onnx.TypeProto.Tensor) -> TensorType | None:
    if proto.elem_type == onnx.TensorProto.UNDEFINED:
        return None
    shape = tuple(_dim(dim) for dim in proto.shape.dim) if proto.HasField("shape") else None
    return TensorType(Datatype.from_onnx(proto.elem_type), shape)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value") and dim.dim_value >= 0:  # some exporters write -1 for "any"
        return dim.dim_value
    return dim.dim_param or None


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The main graph, the bodies of functions, and all subgraphs of their nodes."""
    pending: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    pending.extend(info.algorithm for info in model.training_info)
    pending.extend(info.initialization for info in model.training_info)
    while pending:
        graph = pending.pop()
        yield graph
        for attribute in _attributes(graph.node):
            pending.extend([attribute.g] if attribute.HasField("g") else [])
            pending.extend(attribute.graphs)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that the model stores: initializers and attributes, in all graphs."""
    for graph in _graphs(model):
        if isinstance(graph, onnx.GraphProto):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for attribute in _attributes(graph.node):
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            sparse_attributes = [*attribute.sparse_tensors]
            sparse_attributes += [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in sparse_attributes:
                yield from (sparse.values, sparse.indices)


def _attributes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.AttributeProto]:
    for node in nodes:
        yield from node.attribute


_SIGNATURES = (
    (b"version https://git-lfs", "it is a Git LFS pointer; run `git lfs pull`"),
    (b"PK\x03\x04", "it is a ZIP archive (a PyTorch or Keras file?); export the model to ONNX"),
    (b"\x89HDF", "it is an HDF5 file; export the model to ONNX"),
    (b"\x80", "it is a Python pickle; export the model to ONNX"),
    (b"age-encryption.org/", "it is an age file: an encrypted model"),
    (b"<", "it looks like HTML or XML; was an error page saved in its place?"),
)


def _guess(data: bytes) -> str:
    """What a file that is no ONNX model may be, so that the reader knows what to do."""
    if data[4:8] == b"ORTM":  # the file identifier of onnxruntime's flatbuffers format
        return "it is an .ort file; give the .onnx file that it was made from"
    for signature, meaning in _SIGNATURES:
        if data.startswith(signature):
            return meaning
    return "check that the file was copied completely"
