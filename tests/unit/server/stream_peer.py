"""A client of a stream by hand, and an exchange in memory: tests say what goes over it and when."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from confonnx.ohttp import bhttp
from confonnx.ohttp.bhttp_stream import CONTENT_END, content_chunks, encode_request_head, response_reader
from confonnx.ohttp.chunked import ChunkedRequestSealer
from confonnx.oip import binary, messages
from confonnx.oip.datatypes import Datatype, TensorType
from confonnx.oip.limits import OipLimits
from confonnx.oip.records import RECORDS_MEDIA_TYPE, Record, RecordReader, encode_record
from confonnx.server.http_stream import IdleError
from confonnx.server.messages import Buffer, HttpResponse
from tests.unit.server.harness import Gateway

IDLE = object()


class MemoryExchange:
    """What a test puts into ``body`` is read: bytes, None for the end, IDLE for an idle client."""

    def __init__(self, *, budget: int = 1 << 20) -> None:
        self.body: asyncio.Queue[bytes | object | None] = asyncio.Queue()
        self.fields: Mapping[str, str] | None = None
        self.written: list[bytes] = []
        self.ended = False
        self.draining = False
        self.budget = budget
        self.idle: list[bool] = []

    async def read(self, *, idle: bool) -> bytes | None:
        self.idle.append(idle)
        piece = await self.body.get()
        if piece is IDLE:
            raise IdleError
        assert piece is None or isinstance(piece, bytes)
        return piece

    def begin(self, fields: Mapping[str, str]) -> None:
        assert self.fields is None
        self.fields = fields

    async def write(self, data: Buffer) -> None:
        assert self.fields is not None
        assert not self.ended
        self.written.append(bytes(data))
        await asyncio.sleep(0)

    def end(self) -> None:
        self.ended = True

    def reserve(self, size: int) -> bool:
        if size > self.budget:
            return False
        self.budget -= size
        return True

    def release(self, size: int) -> None:
        self.budget += size


class Peer:
    """A client that seals to ``gateway``, its exchange, and the task that answers it."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        path: str = "/v2/models/add/infer_stream",
        method: str = "POST",
        date: str | None = "now",
        fields: bhttp.Fields = (("content-type", RECORDS_MEDIA_TYPE),),
        budget: int = 1 << 20,
    ) -> None:
        if date is not None:
            fields = (("date", gateway.date() if date == "now" else date), *fields)
        self.sealer = ChunkedRequestSealer(gateway.ring.attested_keys(gateway.now)[-1].config)
        self.head = bytes(
            self.sealer.seal([encode_request_head(bhttp.Request(method, "https", "x", path, fields))])
        )
        self.exchange = MemoryExchange(budget=budget)
        self.reader = response_reader()
        self.records: list[Record] = []
        self.task: asyncio.Task[HttpResponse | None] = asyncio.create_task(
            gateway.app._streams.answer(self.exchange, request_id="id")
        )
        self.put(self.head)

    def put(self, data: bytes | bytearray | object | None) -> None:
        self.exchange.body.put_nowait(bytes(data) if isinstance(data, bytearray) else data)

    def ask(self, message: tuple[Buffer, ...], header_length: int | None = None, *, padding: int = 0) -> None:
        record = encode_record(message, header_length=header_length, padding=padding)
        for chunk in content_chunks(record, size=100_000):
            self.put(self.sealer.seal(chunk))

    def add(self, a: Any, b: Any) -> None:
        self.ask(*question(a=a, b=b))

    def end(self) -> None:
        self.put(self.sealer.finish([CONTENT_END]))
        self.put(None)

    async def answered(self) -> HttpResponse | None:
        """The outer refusal, if there is one; else the answer is in ``reader`` and ``records``."""
        response = await self.task
        if response is not None:
            return response
        opener = self.sealer.response_opener()
        reader = RecordReader(max_size=1 << 20, answers=True)
        chunks = list(opener.feed(b"".join(self.exchange.written)))
        if self.exchange.ended:
            chunks.append(opener.finish())
        self.content = b""
        for chunk in chunks:
            for piece in self.reader.feed(chunk):
                self.content += piece
                if self.reader.head is not None and self.reader.head.status == 200:
                    reader.feed(piece)
        while (record := reader.next_record()) is not None:
            self.records.append(record)
        if self.exchange.ended:
            self.reader.finish()
        return None

    @property
    def statuses(self) -> list[int]:
        return [record.status for record in self.records]


def question(**inputs: Any) -> tuple[tuple[Buffer, ...], int | None]:
    arrays = {name: np.asarray(value, np.float32) for name, value in inputs.items()}
    entries = tuple(
        messages.InferInput(name, TensorType(Datatype.FP32, array.shape), array)
        for name, array in arrays.items()
    )
    encoded = binary.encode_infer_request(messages.InferRequest(entries))
    return tuple(encoded.parts), encoded.header_length


def outputs(record: Record) -> dict[str, Any]:
    assert record.message is not None
    answer = binary.parse_infer_response(
        record.message, header_length=record.header_length, limits=OipLimits()
    )
    return {output.name: np.asarray(output.value).tolist() for output in answer.outputs}


def error_text(record: Record) -> str:
    assert record.message is not None
    return messages.parse_error(record.message)
