"""`AsyncClient`: drives the flows over an asyncio transport, from any number of tasks of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Literal, Self, TypeAlias, TypeVar, cast, overload

from confonnx.attestation.result import AttestedKeys
from confonnx.attestation.statement import ModelDescription
from confonnx.attestation.verify.appraise import Step
from confonnx.client.base import ClientBase, Deadline
from confonnx.client.exchange import HttpRequest
from confonnx.client.flows import Action, EndorsementsWanted, KeysWanted, Reply, SealedFlow
from confonnx.client.options import Connection
from confonnx.client.stream_drivers import AsyncInputs, Prediction, drive_async
from confonnx.client.streams import DEFAULT_MAX_IN_FLIGHT, no_streams, predict_stream, stream_call
from confonnx.client.transport import AsyncDuplexTransport, AsyncHttpTransport, AsyncTransport
from confonnx.errors import ConfonnxError, TransportError, VerificationError
from confonnx.oip.messages import ServerMetadata
from confonnx.oip.values import Value

T = TypeVar("T")
# What an attestation came to, for those who wait for it; None: they had better try themselves.
_Outcome: TypeAlias = AttestedKeys | ConfonnxError | None


class AsyncClient(ClientBase[AsyncTransport]):
    """`Client` for asyncio: the same methods, to await. Use it from any number of tasks of one event loop::

    async with AsyncClient("https://example.org/", enclave_hash="…", enclave_model_hash="…") as client:
        digit = (await client.predict({"image": array}))["digit"]
    """

    async def predict(
        self,
        inputs: Mapping[str, object],
        *,
        model: str | None = None,
        version: str | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Value]:
        """See `Client.predict`."""
        flow = self._flows.predict(
            inputs, model=model, version=version, outputs=outputs, now=self._transport.now()
        )
        return await self._run(flow, self._deadline(timeout))

    @overload
    def predict_stream(
        self,
        inputs: AsyncInputs,
        *,
        model: str | None = None,
        version: str | None = None,
        outputs: Sequence[str] | None = None,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        timeout: float | None = None,
        return_errors: Literal[False] = False,
    ) -> AsyncIterator[dict[str, Value]]: ...

    @overload
    def predict_stream(
        self,
        inputs: AsyncInputs,
        *,
        model: str | None = None,
        version: str | None = None,
        outputs: Sequence[str] | None = None,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        timeout: float | None = None,
        return_errors: bool,
    ) -> AsyncIterator[Prediction]: ...

    def predict_stream(
        self,
        inputs: AsyncInputs,
        *,
        model: str | None = None,
        version: str | None = None,
        outputs: Sequence[str] | None = None,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        timeout: float | None = None,
        return_errors: bool = False,
    ) -> AsyncIterator[Prediction]:
        """See `Client.predict_stream`. ``inputs`` may be asynchronous; a late input keeps no answer
        back. Whoever leaves the iteration early closes it with ``aclose``.
        """
        call = stream_call(model, version, outputs, max_in_flight=max_in_flight, return_errors=return_errors)
        transport = self._transport
        if not isinstance(transport, AsyncDuplexTransport):
            raise no_streams(type(transport).__name__)
        seconds = self._deadline(timeout).seconds
        return drive_async(
            predict_stream(self._flows, call),
            inputs,
            transport=transport,
            timeout=seconds,
            perform=lambda action: self._perform(action, Deadline(seconds, monotonic())),
        )

    async def verify(
        self, *, trace: Callable[[Step], None] | None = None, timeout: float | None = None
    ) -> AttestedKeys:
        """See `Client.verify`."""
        return await self._attest(self._deadline(timeout), trace)

    async def models(self, *, timeout: float | None = None) -> tuple[ModelDescription, ...]:
        """See `Client.models`."""
        return await self._run(self._flows.models(now=self._transport.now()), self._deadline(timeout))

    async def server_metadata(self, *, timeout: float | None = None) -> ServerMetadata:
        """See `Client.server_metadata`."""
        return await self._run(
            self._flows.server_metadata(now=self._transport.now()), self._deadline(timeout)
        )

    async def ready(
        self, *, model: str | None = None, version: str | None = None, timeout: float | None = None
    ) -> bool:
        """See `Client.ready`."""
        flow = self._flows.ready(model=model, version=version, now=self._transport.now())
        return await self._run(flow, self._deadline(timeout))

    async def close(self) -> None:
        """See `Client.close`."""
        self._shut()
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @staticmethod
    def _connect(connection: Connection) -> AsyncTransport:
        return AsyncHttpTransport(connection)

    def _prepare(self) -> None:
        self._attempt: asyncio.Future[_Outcome] | None = None

    async def _run(self, flow: SealedFlow[T], deadline: Deadline) -> T:
        try:
            action = next(flow)
            while True:
                try:
                    reply = await self._perform(action, deadline)
                except ConfonnxError as error:
                    action = flow.throw(error)
                else:
                    action = flow.send(reply)
        except StopIteration as stop:
            return cast("T", stop.value)

    async def _perform(self, action: Action, deadline: Deadline) -> Reply:
        self._check_open()
        match action:
            case HttpRequest():
                return await self._transport.send(action, timeout=deadline.left())
            case KeysWanted(instead_of):
                return await self._new_keys(instead_of, deadline)
            case EndorsementsWanted(found, now):
                # Vendors are asked once per attestation, so a thread will do.
                return await asyncio.to_thread(self._endorse, found, now, deadline)

    async def _new_keys(self, instead_of: AttestedKeys | None, deadline: Deadline) -> AttestedKeys:
        """Keys other than ``instead_of``, by one attestation that all waiting tasks share."""
        while True:
            keys = self._state.keys
            if keys is not None and keys is not instead_of:
                return keys
            if self._attempt is None:
                self._attempt = asyncio.get_running_loop().create_future()
                return await self._attest_for_all(self._attempt, deadline)
            try:
                async with asyncio.timeout(deadline.left()):
                    # Shielded: a task that is cancelled while it waits must not cancel what others wait for.
                    outcome = await asyncio.shield(self._attempt)
            except TimeoutError:
                raise deadline.passed() from None
            if isinstance(outcome, ConfonnxError):
                raise outcome
            if outcome is not None:
                return outcome

    async def _attest_for_all(self, attempt: asyncio.Future[_Outcome], deadline: Deadline) -> AttestedKeys:
        outcome: _Outcome = None
        try:
            outcome = await self._attest(deadline)
        except TransportError:
            raise  # it may be this call's own short time-out, so no verdict for the others
        except ConfonnxError as error:
            outcome = error
            raise
        finally:
            self._attempt = None
            attempt.set_result(outcome)
        return outcome

    async def _attest(self, deadline: Deadline, trace: Callable[[Step], None] | None = None) -> AttestedKeys:
        try:
            keys = await self._run(self._flows.attest(trace=trace), deadline)
        except VerificationError:
            self._state.keys = None  # what was verified before is no longer what answers
            raise
        self._state.keys = keys
        return keys
