"""Drive the flow of `streams`: blocking, or with asyncio. All that they decide is how to wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import TypeAlias

from confonnx.client.duplex import AsyncDuplex, Duplex
from confonnx.client.flows import Action, Reply
from confonnx.client.stream_actions import (
    Arrived,
    AwaitNext,
    CloseStream,
    EndRequest,
    Event,
    GiveOut,
    Input,
    InputsEnded,
    OpenStream,
    Refused,
    SendPiece,
    StreamAction,
    StreamFlow,
    StreamReply,
)
from confonnx.client.transport import AsyncDuplexTransport, DuplexTransport
from confonnx.errors import ConfonnxError
from confonnx.oip.values import Value

_LONG_PULL = 0.5
"""Seconds for an input in which a server or what stands before it may have given up the connection."""

Inputs: TypeAlias = Iterable[Mapping[str, object]]
AsyncInputs: TypeAlias = AsyncIterable[Mapping[str, object]] | Iterable[Mapping[str, object]]
Prediction: TypeAlias = dict[str, Value] | ConfonnxError


def drive(
    flow: StreamFlow[None],
    inputs: Inputs,
    *,
    transport: DuplexTransport,
    timeout: float | None,
    perform: Callable[[Action], Reply],
) -> Iterator[Prediction]:
    """What the flow gives out. ``perform`` does what is not about the stream; ``timeout``, in seconds, bounds
    each wait for the network. Closing the iterator closes the request.
    """
    stream = _Blocking(iter(inputs), transport, timeout, perform)
    reply: StreamReply = None
    error: ConfonnxError | None = None
    try:
        while True:
            try:
                action = flow.send(reply) if error is None else flow.throw(error)
            except StopIteration:
                return
            reply = error = None
            if isinstance(action, GiveOut):
                yield action.value
            elif isinstance(action, AwaitNext) and action.input_wanted and not stream.has_answer():
                reply = stream.pull()  # whose errors are the caller's own, and end everything
            else:
                try:
                    reply = stream.perform(action)
                except ConfonnxError as found:
                    error = found
    finally:
        flow.close()
        stream.close()


class _Blocking:
    """The request that is open, and where inputs come from. Mutable."""

    def __init__(
        self,
        inputs: Iterator[Mapping[str, object]],
        transport: DuplexTransport,
        timeout: float | None,
        perform: Callable[[Action], Reply],
    ) -> None:
        self._inputs = inputs
        self._transport = transport
        self._timeout = timeout
        self._perform = perform
        self._duplex: Duplex | None = None

    def has_answer(self) -> bool:
        """Whether there is something of the answer before another input is pulled."""
        if self._duplex is None:
            return False
        try:
            return self._duplex.is_ready()
        except ConfonnxError:
            return True  # which `receive` will tell

    def pull(self) -> Event:
        begun = monotonic()
        for inputs in self._inputs:
            if monotonic() - begun > _LONG_PULL:
                self.has_answer()  # what the peer said before it closed would be lost by sending to it
            return Input(inputs, self._transport.now())
        return InputsEnded()

    def perform(self, action: StreamAction) -> StreamReply:
        match action:
            case OpenStream(request):
                self._duplex = self._transport.open(request, timeout=self._timeout)
            case SendPiece(data):
                self._open.send(data)
            case EndRequest():
                self._open.finish()
            case CloseStream():
                self.close()
            case AwaitNext():
                piece = self._open.receive()
                refusal = None if piece is not None else self._open.refusal
                return Arrived(piece) if refusal is None else Refused(refusal)
            case GiveOut():
                raise AssertionError("what is given out is yielded")
            case _:
                return self._perform(action)
        return None

    def close(self) -> None:
        duplex, self._duplex = self._duplex, None
        if duplex is not None:
            duplex.close()

    @property
    def _open(self) -> Duplex:
        assert self._duplex is not None  # the flow opens it first
        return self._duplex


async def drive_async(
    flow: StreamFlow[None],
    inputs: AsyncInputs,
    *,
    transport: AsyncDuplexTransport,
    timeout: float | None,
    perform: Callable[[Action], Awaitable[Reply]],
) -> AsyncIterator[Prediction]:
    """As `drive`. An input that comes late keeps no answer back."""
    stream = _Tasks(inputs, transport, timeout, perform)
    reply: StreamReply = None
    error: ConfonnxError | None = None
    try:
        while True:
            try:
                action = flow.send(reply) if error is None else flow.throw(error)
            except StopIteration:
                return
            reply = error = None
            if isinstance(action, GiveOut):
                yield action.value
            elif isinstance(action, AwaitNext) and action.input_wanted and await stream.input_is_next():
                reply = stream.take_input()  # whose errors are the caller's own, and end everything
            else:
                try:
                    reply = await stream.perform(action)
                except ConfonnxError as found:
                    error = found
    finally:
        flow.close()
        await stream.close()


class _Tasks:
    """The request that is open, where inputs come from, and what is waited for. Mutable."""

    def __init__(
        self,
        inputs: AsyncInputs,
        transport: AsyncDuplexTransport,
        timeout: float | None,
        perform: Callable[[Action], Awaitable[Reply]],
    ) -> None:
        self._inputs = inputs.__aiter__() if isinstance(inputs, AsyncIterable) else iter(inputs)
        self._transport = transport
        self._timeout = timeout
        self._perform = perform
        self._duplex: AsyncDuplex | None = None
        self._pulling: asyncio.Task[Event] | None = None
        self._receiving: asyncio.Task[bytes | None] | None = None

    async def input_is_next(self) -> bool:
        """Waits for an input and for the answer; whether the input is first."""
        if isinstance(self._inputs, Iterator):  # there is no waiting for it
            await asyncio.sleep(0)  # so that what came is read
            return self._duplex is None or not self._duplex.is_ready()
        if self._pulling is None:
            self._pulling = asyncio.create_task(self._pull(self._inputs))
        waits_for: set[asyncio.Task[Event] | asyncio.Task[bytes | None]] = {self._pulling}
        if self._duplex is not None:
            self._receiving = self._receiving or asyncio.create_task(_piece(self._duplex))
            waits_for.add(self._receiving)
        await asyncio.wait(waits_for, return_when=asyncio.FIRST_COMPLETED)
        return self._receiving is None or not self._receiving.done()

    def take_input(self) -> Event:
        """The input that is next."""
        if isinstance(self._inputs, Iterator):
            for inputs in self._inputs:
                return Input(inputs, self._transport.now())
            return InputsEnded()
        assert self._pulling is not None
        pulling, self._pulling = self._pulling, None
        return pulling.result()

    async def perform(self, action: StreamAction) -> StreamReply:
        match action:
            case OpenStream(request):
                self._duplex = await self._transport.open(request, timeout=self._timeout)
            case SendPiece(data):
                await self._open.send(data)
            case EndRequest():
                await self._open.finish()
            case CloseStream():
                await self._close_request()
            case AwaitNext():
                return await self._arrived()
            case GiveOut():
                raise AssertionError("what is given out is yielded")
            case _:
                return await self._perform(action)
        return None

    async def close(self) -> None:
        if self._pulling is not None:
            await _ended(self._pulling)
        await self._close_request()

    async def _arrived(self) -> Event:
        receiving, self._receiving = self._receiving, None
        piece = await (self._open.receive() if receiving is None else receiving)
        refusal = None if piece is not None else self._open.refusal
        return Arrived(piece, pulling=self._pulling is not None) if refusal is None else Refused(refusal)

    async def _pull(self, source: AsyncIterator[Mapping[str, object]]) -> Event:
        async for inputs in source:
            return Input(inputs, self._transport.now())
        return InputsEnded()

    async def _close_request(self) -> None:
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            await _ended(receiving)
        duplex, self._duplex = self._duplex, None
        if duplex is not None:
            await duplex.close()

    @property
    def _open(self) -> AsyncDuplex:
        assert self._duplex is not None  # the flow opens it first
        return self._duplex


async def _piece(duplex: AsyncDuplex) -> bytes | None:
    return await duplex.receive()


async def _ended(task: asyncio.Task[Event] | asyncio.Task[bytes | None]) -> None:
    """Cancels ``task``, whose outcome nobody will look at."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
