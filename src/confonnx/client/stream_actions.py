"""What the flow of a stream yields, and what it is sent back: values, no I/O."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, TypeVar

from confonnx.client.exchange import HttpRequest, HttpResponse
from confonnx.client.flows import Action, Reply
from confonnx.errors import ConfonnxError
from confonnx.ohttp.reader import Buffer
from confonnx.oip.values import Value

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Begin this request, whose body and answer will flow at the same time. Sent back: None."""

    request: HttpRequest


@dataclass(frozen=True, slots=True)
class SendPiece:
    """Send this of the body, now. Sent back: None."""

    data: Buffer


@dataclass(frozen=True, slots=True)
class EndRequest:
    """The body is complete. Sent back: None."""


@dataclass(frozen=True, slots=True)
class CloseStream:
    """The request is over, or given up. Sent back: None."""


@dataclass(frozen=True, slots=True)
class AwaitNext:
    """Wait for the next of the answer, or, where ``input_wanted``, for whichever comes first of that and the
    next input; without an open request for the input alone. Sent back: `Event`.
    """

    input_wanted: bool


@dataclass(frozen=True, slots=True)
class GiveOut:
    """Give this to the caller. Sent back: None."""

    value: dict[str, Value] | ConfonnxError


@dataclass(frozen=True, slots=True)
class Input:
    """An input was pulled, at that time of the client's clock."""

    inputs: Mapping[str, object]
    at: datetime


@dataclass(frozen=True, slots=True)
class InputsEnded:
    """There are no more inputs."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """``piece`` of the answer's body came, or its end (None). ``pulling``: the next input was asked for."""

    piece: Buffer | None
    pulling: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer is another than was accepted."""

    response: HttpResponse


Event: TypeAlias = Input | InputsEnded | Arrived | Refused
StreamAction: TypeAlias = Action | OpenStream | SendPiece | EndRequest | CloseStream | AwaitNext | GiveOut
StreamReply: TypeAlias = Reply | Event | None
StreamFlow: TypeAlias = Generator[StreamAction, StreamReply, T]
