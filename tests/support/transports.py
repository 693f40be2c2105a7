"""Both transports, driven alike: each call of those for asyncio runs in a loop of its own driver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import uvloop

from confonnx.client.duplex import AsyncDuplex, Duplex
from confonnx.client.exchange import HttpRequest, HttpResponse
from confonnx.client.options import Connection, parse_url
from confonnx.client.transport import AsyncHttpTransport, HttpTransport
from confonnx.ohttp.hpke import Buffer

T = TypeVar("T")


def connection(url: str, **changes: Any) -> Connection:
    """How to reach ``url``."""
    return Connection(parse_url(url), **changes)


class Driver(Protocol):
    """A transport. It is made for the connection of the first call."""

    def send(self, to: Connection, request: HttpRequest, timeout: float | None = 10) -> HttpResponse:
        """An exchange."""
        ...

    def open(self, to: Connection, request: HttpRequest, timeout: float | None = 10) -> Duplex:
        """An exchange in both directions at once."""
        ...

    def close(self) -> None:
        """Closes the transport."""
        ...


class BlockingDriver:
    """`HttpTransport`."""

    def __init__(self) -> None:
        self._transport: HttpTransport | None = None

    def send(self, to: Connection, request: HttpRequest, timeout: float | None = 10) -> HttpResponse:
        """See `Driver`."""
        return self._to(to).send(request, timeout=timeout)

    def open(self, to: Connection, request: HttpRequest, timeout: float | None = 10) -> Duplex:
        """See `Driver`."""
        return self._to(to).open(request, timeout=timeout)

    def close(self) -> None:
        """See `Driver`."""
        if self._transport is not None:
            self._transport.close()

    def _to(self, to: Connection) -> HttpTransport:
        self._transport = self._transport or HttpTransport(to)
        return self._transport


class TaskDriver:
    """`AsyncHttpTransport`."""

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self._runner = asyncio.Runner(loop_factory=loop_factory)
        self._transport: AsyncHttpTransport | None = None

    def send(self, to: Connection, request: HttpRequest, timeout: float | None = 10) -> HttpResponse:
        """See `Driver`."""
        return self.run(self._to(to).send(request, timeout=timeout))

    def open(self, to: Connection, request: HttpRequest, timeout: float | None = 10) -> Duplex:
        """See `Driver`."""
        return _Facade(self, self.run(self._to(to).open(request, timeout=timeout)))

    def close(self) -> None:
        """See `Driver`."""
        if self._transport is not None:
            self.run(self._transport.close())
            self._transport = None
        self._runner.close()

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        """The outcome of ``step``."""
        return self._runner.run(step)

    def _to(self, to: Connection) -> AsyncHttpTransport:
        self._transport = self._transport or AsyncHttpTransport(to)
        return self._transport


class UvloopDriver(TaskDriver):
    """`AsyncHttpTransport` in the event loop that many web servers run."""

    def __init__(self) -> None:
        super().__init__(uvloop.new_event_loop)


class _Facade:
    """A `Duplex` for an `AsyncDuplex`."""

    def __init__(self, driver: TaskDriver, inner: AsyncDuplex) -> None:
        self._driver, self._inner = driver, inner

    @property
    def answered(self) -> bool:
        return self._inner.answered

    @property
    def refusal(self) -> HttpResponse | None:
        return self._inner.refusal

    def send(self, data: Buffer) -> None:
        self._driver.run(self._inner.send(data))

    def finish(self) -> None:
        self._driver.run(self._inner.finish())

    def is_ready(self) -> bool:
        self._driver.run(asyncio.sleep(0))
        return self._inner.is_ready()

    def receive(self) -> bytes | None:
        return self._driver.run(self._inner.receive())

    def close(self) -> None:
        self._driver.run(self._inner.close())
