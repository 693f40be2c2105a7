"""Hand-made requests to a running server: anything inside the seal, anything outside it."""

from __future__ import annotations

import http.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Self

from confonnx.attestation.result import AttestedKeys
from confonnx.client import Client
from confonnx.ohttp import bhttp
from confonnx.ohttp.encapsulation import REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE, ResponseOpener
from confonnx.oip.binary import HEADER_LENGTH_FIELD
from tests.support.running import RunningServer

_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Outer:
    """An answer outside the seal."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """The media type, without parameters."""
        return self.fields.get("content-type", "").partition(";")[0]


class SealedCalls:
    """Seals to the verified keys of one server, and skips every check that the real client makes."""

    def __init__(self, port: int, keys: AttestedKeys) -> None:
        self.keys = keys
        self._port = port

    @classmethod
    def to(cls, server: RunningServer, *, port: int | None = None) -> Self:
        """Verifies ``server``; ``port``: where to reach it, if there is something in between."""
        with Client(
            server.url, enclave_hash=server.measurement, dangerous_any_model=True, allow_simulated=True
        ) as client:
            return cls(server.port if port is None else port, client.verify())

    def ask(
        self,
        method: str,
        path: str,
        *,
        fields: bhttp.Fields = (),
        body: bytes = b"",
        date: datetime | None = None,
    ) -> bhttp.Response:
        """The sealed answer to a well-formed inner request that is dated now, or ``date``."""
        moment = datetime.now(UTC) if date is None else date
        dated = (("date", format_datetime(moment, usegmt=True)), *fields)
        request = bhttp.Request(method, "http", "localhost", path, dated, body)
        return self.ask_with(bhttp.encode_request(request))

    def infer(self, model: str, header: bytes, tensors: bytes | None = None) -> bhttp.Response:
        """The sealed answer to an inference request of these bytes; ``tensors``: what follows the JSON."""
        fields: bhttp.Fields = ()
        if tensors is not None:
            fields = ((HEADER_LENGTH_FIELD, str(len(header))),)
        return self.ask("POST", f"/v2/models/{model}/infer", fields=fields, body=header + (tensors or b""))

    def ask_with(self, plaintext: Sequence[bytes | bytearray | memoryview]) -> bhttp.Response:
        """The sealed answer to any plaintext at all."""
        message, opener = self.seal(plaintext)
        outer = self.post(bytes(message))
        assert (outer.status, outer.media_type) == (200, RESPONSE_MEDIA_TYPE), outer
        return bhttp.parse_response(opener.open(outer.body))

    def seal(self, plaintext: Sequence[bytes | bytearray | memoryview]) -> tuple[bytearray, ResponseOpener]:
        """An encapsulated request, and what opens its answer."""
        return self.keys.encapsulate(plaintext, now=datetime.now(UTC))

    def post(self, body: bytes, *, path: str = "/ohttp", media_type: str = REQUEST_MEDIA_TYPE) -> Outer:
        """The outer answer to these bytes."""
        return self.exchange("POST", path, {"content-type": media_type}, body)

    def exchange(
        self, method: str, path: str, fields: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Outer:
        """The outer answer to any request."""
        return exchange(self._port, method, path, fields, body)


def exchange(
    port: int, method: str, path: str, fields: Mapping[str, str] | None = None, body: bytes | None = None
) -> Outer:
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request(method, path, body, dict(fields or {}))
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Outer(response.status, fields, response.read())
    finally:
        connection.close()
