"""`Client`: drives the flows over a blocking transport, from any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
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
from confonnx.client.stream_drivers import Prediction, drive
from confonnx.client.streams import DEFAULT_MAX_IN_FLIGHT, no_streams, predict_stream, stream_call
from confonnx.client.transport import DuplexTransport, HttpTransport, Transport
from confonnx.errors import ConfonnxError, TransportError, VerificationError
from confonnx.oip.messages import ServerMetadata
from confonnx.oip.values import Value

T = TypeVar("T")
# What an attestation came to, for those who wait for it; None: they had better try themselves.
_Outcome: TypeAlias = AttestedKeys | ConfonnxError | None


class Client(ClientBase[Transport]):
    """Asks models of a server that it has verified first. Use it from as many threads as you like::

        with Client("https://example.org/", enclave_hash="…", enclave_model_hash="…") as client:
            digit = client.predict({"image": array})["digit"]

    One verification serves many calls; keys that run out, roll over or belong to a server that was restarted
    are replaced by one new verification, which all threads share.
    """

    def predict(
        self,
        inputs: Mapping[str, object],
        *,
        model: str | None = None,
        version: str | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Value]:
        """The outputs by name for ``inputs`` by name.

        ``inputs``: arrays, nested lists, scalars, strings, whatever fits the type and shape that the model is
        attested to have. ``model`` and ``version`` may be left out where the policy accepts one model only;
        without ``version`` it is the highest. ``outputs``: the names wanted; all without it. ``timeout``:
        seconds, instead of the client's.

        Raises InvalidInputError (before anything is sent, where inputs do not fit), ModelNotFoundError,
        InferenceError, TooLargeError, OverloadedError, DeadlineExceededError, AuthenticationError,
        VerificationError (the server is not what the policy accepts, and was sent nothing),
        EncapsulationError (the answer was tampered with), NotConfonnxError, ServerError and TransportError.
        """
        flow = self._flows.predict(
            inputs, model=model, version=version, outputs=outputs, now=self._transport.now()
        )
        return self._run(flow, self._deadline(timeout))

    @overload
    def predict_stream(
        self,
        inputs: Iterable[Mapping[str, object]],
        *,
        model: str | None = None,
        version: str | None = None,
        outputs: Sequence[str] | None = None,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        timeout: float | None = None,
        return_errors: Literal[False] = False,
    ) -> Iterator[dict[str, Value]]: ...

    @overload
    def predict_stream(
        self,
        inputs: Iterable[Mapping[str, object]],
        *,
        model: str | None = None,
        version: str | None = None,
        outputs: Sequence[str] | None = None,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        timeout: float | None = None,
        return_errors: bool,
    ) -> Iterator[Prediction]: ...

    def predict_stream(
        self,
        inputs: Iterable[Mapping[str, object]],
        *,
        model: str | None = None,
        version: str | None = None,
        outputs: Sequence[str] | None = None,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        timeout: float | None = None,
        return_errors: bool = False,
    ) -> Iterator[Prediction]:
        """A prediction for each of ``inputs``, in their order, over one request: an input of the iterator is
        what `predict` takes, an item of the result what it gives.

        Inputs are pulled as they are needed: at most ``max_in_flight`` of them have no answer yet. With 1,
        each input may depend on the answer before. An array may be changed once its input was pulled and the
        next one is asked for. ``timeout``: seconds that the server may let pass without a word when it owes
        one, instead of the client's.

        A prediction that fails raises in its turn and ends the stream; with ``return_errors`` it is given in
        place of the outputs, and the stream goes on. Closing the iterator closes the request. A stream may
        outlast keys, and servers that are restarted one after the other: it goes on in another request.
        Proxies, ingresses and relays between must pass bodies on as they come; docs/adr/0014-streams.md says
        how nginx does, and that it carries no tensors of megabytes so: those go by `predict`.

        Raises ConfigurationError now, and what `predict` raises as the iterator advances: InvalidInputError
        names the position of the input, of which nothing was sent; EncapsulationError says that the stream
        was cut off or changed on its way.
        """
        call = stream_call(model, version, outputs, max_in_flight=max_in_flight, return_errors=return_errors)
        transport = self._transport
        if not isinstance(transport, DuplexTransport):
            raise no_streams(type(transport).__name__)
        seconds = self._deadline(timeout).seconds
        return drive(
            predict_stream(self._flows, call),
            inputs,
            transport=transport,
            timeout=seconds,
            perform=lambda action: self._perform(action, Deadline(seconds, monotonic())),
        )

    def verify(
        self, *, trace: Callable[[Step], None] | None = None, timeout: float | None = None
    ) -> AttestedKeys:
        """Verifies the server now, with fresh evidence, and gives what was found; later calls use it.

        ``trace`` receives each step of the appraisal with its outcome, also where a later one fails. Raises
        VerificationError where the policy does not accept the server; later calls then verify it again.
        """
        return self._attest(self._deadline(timeout), trace)

    def models(self, *, timeout: float | None = None) -> tuple[ModelDescription, ...]:
        """The models that the server is attested to have and the policy accepts, with their schemas."""
        return self._run(self._flows.models(now=self._transport.now()), self._deadline(timeout))

    def server_metadata(self, *, timeout: float | None = None) -> ServerMetadata:
        """Name, version and extensions of the server."""
        return self._run(self._flows.server_metadata(now=self._transport.now()), self._deadline(timeout))

    def ready(
        self, *, model: str | None = None, version: str | None = None, timeout: float | None = None
    ) -> bool:
        """Whether the server, or the named model, is ready to predict."""
        flow = self._flows.ready(model=model, version=version, now=self._transport.now())
        return self._run(flow, self._deadline(timeout))

    def close(self) -> None:
        """Closes the connections; later calls raise ConfigurationError. Closing twice is allowed."""
        self._shut()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _connect(connection: Connection) -> Transport:
        return HttpTransport(connection)

    def _prepare(self) -> None:
        self._lock = threading.Lock()  # guards the choice of who attests for all
        self._attempt: Future[_Outcome] | None = None

    def _run(self, flow: SealedFlow[T], deadline: Deadline) -> T:
        try:
            action = next(flow)
            while True:
                try:
                    reply = self._perform(action, deadline)
                except ConfonnxError as error:
                    action = flow.throw(error)
                else:
                    action = flow.send(reply)
        except StopIteration as stop:
            return cast("T", stop.value)

    def _perform(self, action: Action, deadline: Deadline) -> Reply:
        self._check_open()
        match action:
            case HttpRequest():
                return self._transport.send(action, timeout=deadline.left())
            case KeysWanted(instead_of):
                return self._new_keys(instead_of, deadline)
            case EndorsementsWanted(found, now):
                return self._endorse(found, now, deadline)

    def _new_keys(self, instead_of: AttestedKeys | None, deadline: Deadline) -> AttestedKeys:
        """Keys other than ``instead_of``, by one attestation that all waiting threads share."""
        while True:
            with self._lock:
                keys = self._state.keys
                if keys is not None and keys is not instead_of:
                    return keys
                attempt = self._attempt
                if attempt is None:
                    mine = self._attempt = Future()
            if attempt is None:
                return self._attest_for_all(mine, deadline)
            try:
                outcome = attempt.result(deadline.left())
            except TimeoutError:
                raise deadline.passed() from None
            if isinstance(outcome, ConfonnxError):
                raise outcome
            if outcome is not None:
                return outcome

    def _attest_for_all(self, attempt: Future[_Outcome], deadline: Deadline) -> AttestedKeys:
        outcome: _Outcome = None
        try:
            outcome = self._attest(deadline)
        except TransportError:
            raise  # it may be this call's own short time-out, so no verdict for the others
        except ConfonnxError as error:
            outcome = error
            raise
        finally:
            with self._lock:
                self._attempt = None
            attempt.set_result(outcome)
        return outcome

    def _attest(self, deadline: Deadline, trace: Callable[[Step], None] | None = None) -> AttestedKeys:
        try:
            keys = self._run(self._flows.attest(trace=trace), deadline)
        except VerificationError:
            self._state.keys = None  # what was verified before is no longer what answers
            raise
        self._state.keys = keys
        return keys
