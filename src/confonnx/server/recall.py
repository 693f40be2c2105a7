"""What one session said last, so that what it says again need not be worked out again.

Requests of a session mostly differ in their tensors alone. What does not depend on those (the head, which
model, where the tensors lie, how the answer begins) is settled once and kept for as long as the same bytes
come. It belongs to one session: no client can tell from the time of its answers what another one asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import cast

from confonnx.ohttp import bhttp
from confonnx.oip import binary, messages
from confonnx.oip.datatypes import Array, Buffer
from confonnx.oip.layout import Layout, Shapes, is_plain, shapes_of
from confonnx.oip.values import Value
from confonnx.runtime.registry import LoadedModel


@dataclass(frozen=True, slots=True)
class AnswerHeader:
    """How an answer begins: media type and fields, and the JSON before its tensors."""

    content_type: str
    fields: bhttp.Fields
    json: Buffer = field(repr=False)


class AnswerForm:
    """How answers to one request, and to others that differ from it in their tensors alone, are written.

    Mutable: shapes and header of the last answer.
    """

    __slots__ = ("_last", "_request", "model", "wanted")

    def __init__(self, model: LoadedModel, request: messages.InferRequest) -> None:
        """Of ``request``, which is for ``model``, only what it says of the answer is kept."""
        self.model = model
        self.wanted = [output.name for output in request.outputs]
        self._request = messages.InferRequest((), request.outputs, request.id, request.parameters)
        self._last: tuple[Shapes, AnswerHeader] | None = None  # one value, since threads write answers

    def write(self, values: Mapping[str, Value]) -> tuple[AnswerHeader, tuple[Buffer, ...]]:
        """The model's outputs as the header and what follows it. Raises InvalidInputError."""
        if self._last is not None:
            arrays = cast("Collection[Array]", values.values())  # as they were the last time, and always are
            if [array.shape for array in arrays] == self._last[0]:
                return self._last[1], tuple([array.data.cast("B") for array in arrays])
        description = self.model.description
        types = {spec.name: spec.type for spec in description.outputs}
        outputs = tuple(messages.InferOutput(name, types[name], value) for name, value in values.items())
        response = messages.InferResponse(description.name, description.version, outputs)
        encoded = binary.encode_infer_response(response, self._request)
        fields: bhttp.Fields = ()
        if encoded.header_length is not None:
            fields = ((binary.HEADER_LENGTH_FIELD, str(encoded.header_length)),)
        header = AnswerHeader(encoded.content_type, fields, encoded.parts[0])
        shapes = shapes_of(values)
        binary_alone = len(encoded.parts) == 1 + len(values)
        if shapes and binary_alone and all(is_plain(types[name]) for name in values):
            self._last = shapes, header
        return header, encoded.parts[1:]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a request for a prediction settles for the next one with its head and its JSON header."""

    head: bhttp.RequestHead
    layout: Layout
    form: AnswerForm
    inline: bool
    """Whether a run on tensors of this layout needs no thread."""

    def repeats(self, head: bhttp.RequestHead, body: Buffer) -> bool:
        """Whether a request is one of those. A parser gives the very same head for the same bytes."""
        return head is self.head and self.layout.matches(body)


class Recall:
    """The memory of one session, or, made for ``sizes=0``, of a request that stands alone: none. Mutable; for
    use by one thread. Requests of a few sizes are remembered: clients send a few shapes in turn.
    """

    __slots__ = ("_predictions", "_sizes", "answer_key", "answer_parts", "lasting", "requests")

    def __init__(self, *, sizes: int = bhttp.KEPT_REQUESTS) -> None:
        """Nothing was said yet."""
        self._sizes = sizes
        self.lasting = sizes > 0
        """Whether it is worth while to tell it anything."""
        self.requests = bhttp.RequestParser(sizes=sizes)
        self._predictions: dict[int, Prediction] = {}  # by the id of their head, which they keep alive
        self.answer_key: tuple[object, ...] = ()
        """Of the beginning of an answer that was sent: everything that it depends on."""
        self.answer_parts: tuple[Buffer, Buffer] = (b"", b"")
        """What was before and after the body of that answer."""

    def prediction(self, head: bhttp.RequestHead, body: Buffer) -> Prediction | None:
        """The one that this request repeats."""
        known = self._predictions.get(id(head))
        return known if known is not None and known.repeats(head, body) else None

    def keep(self, prediction: Prediction) -> None:
        """Remember it, and forget the oldest one if there are enough."""
        if len(self._predictions) >= self._sizes:
            del self._predictions[next(iter(self._predictions))]
        self._predictions[id(prediction.head)] = prediction
