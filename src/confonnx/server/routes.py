"""The Open Inference Protocol inside the seal: from an opened request to the answer that will be sealed.

Nothing of the outer request comes in here, so no outer field can steer what happens inside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from confonnx.errors import (
    AuthenticationError,
    BhttpError,
    ConfonnxError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    ModelNotFoundError,
    OipError,
    OverloadedError,
    ReplayError,
    TooLargeError,
)
from confonnx.ohttp import bhttp
from confonnx.oip import binary, messages
from confonnx.oip.layout import layout_of
from confonnx.oip.limits import OipLimits
from confonnx.oip.values import Value, check_inputs
from confonnx.runtime.batching import Batcher, BatchOptions, Observers
from confonnx.runtime.registry import LoadedModel, Registry
from confonnx.runtime.scheduler import Scheduler
from confonnx.runtime.session import Abort
from confonnx.server.messages import Buffer
from confonnx.server.metrics import Metrics, Outcome
from confonnx.server.recall import AnswerForm, Prediction, Recall

T = TypeVar("T")

JSON = "application/json"
SERVER_NAME = "confonnx"

_SMALL = 65536
"""Bytes of a body that is parsed on the event loop; parsing a larger one would hold up other connections."""

_KEPT_HEADER = 2048
"""Bytes of JSON that a session remembers of one request."""

# The one place where errors become statuses; the first that fits. The client's table is its mirror image.
_STATUSES: tuple[tuple[type[ConfonnxError], int, Outcome], ...] = (
    (AuthenticationError, 401, Outcome.UNAUTHENTICATED),
    (ModelNotFoundError, 404, Outcome.NOT_FOUND),
    (TooLargeError, 413, Outcome.INVALID),
    (OipError, 400, Outcome.INVALID),
    (BhttpError, 400, Outcome.INVALID),
    (InvalidInputError, 400, Outcome.INVALID),
    (ReplayError, 400, Outcome.STALE),
    (OverloadedError, 503, Outcome.OVERLOADED),
    (DeadlineExceededError, 504, Outcome.DEADLINE),
    (InferenceError, 500, Outcome.FAILED),
)


class Reply(msgspec.Struct, frozen=True):
    """An answer before sealing; ``model``, ``version`` and ``outcome`` are for the metrics."""

    status: int
    body: tuple[Buffer, ...]
    content_type: str = JSON
    fields: bhttp.Fields = ()
    model: str = ""
    version: str = ""
    outcome: Outcome = Outcome.OK

    def __repr__(self) -> str:
        return f"Reply({self.status})"  # never what will be sealed


def error_reply(error: ConfonnxError) -> Reply:
    """The answer to a request that failed as expected: the protocol's ``{"error": …}``."""
    for kind, status, outcome in _STATUSES:
        if isinstance(error, kind):
            waits = (("retry-after", str(error.retry_after)),) if isinstance(error, OverloadedError) else ()
            return Reply(status, (messages.encode_error(str(error)),), fields=waits, outcome=outcome)
    raise error


def plain_error(
    status: int, text: str, *, fields: bhttp.Fields = (), outcome: Outcome = Outcome.INVALID
) -> Reply:
    """An error of a status that no exception stands for."""
    return Reply(status, (messages.encode_error(text),), fields=fields, outcome=outcome)


class Routes:
    """Answers opened requests from the loaded models."""

    def __init__(
        self,
        *,
        registry: Registry,
        scheduler: Scheduler,
        metrics: Metrics,
        version: str,
        timeout: float,
        is_ready: Callable[[], bool],
        limits: OipLimits,
    ) -> None:
        """``timeout`` (seconds) bounds an inference, queue included; ``is_ready`` is false while draining."""
        self._registry = registry
        self._scheduler = scheduler
        self._metrics = metrics
        self._timeout = timeout
        self._is_ready = is_ready
        self._limits = limits
        self._server = messages.ServerMetadata(SERVER_NAME, version).encode()
        names = dict.fromkeys(model.description.name for model in registry.models)
        self._models = messages.encode_model_list(names)
        self._metadata = {_key(model): _metadata(model, registry) for model in registry.models}
        self._batchers = {
            _key(model): self._batcher(model, model.batching)
            for model in registry.models
            if model.batching is not None
        }

    def _batcher(self, model: LoadedModel, options: BatchOptions) -> Batcher[Reply]:
        observers = Observers(self._metrics.queue_seconds.observe, self._metrics.inference_seconds.observe)
        return Batcher(
            model.session, options, scheduler=self._scheduler, kind=_key(model), observers=observers
        )

    async def answer(self, head: bhttp.RequestHead, body: Buffer, recall: Recall) -> Reply:
        """The answer to one opened, authenticated request. Raises the errors that ``error_reply`` takes."""
        known = recall.prediction(head, body)
        if known is not None:
            try:
                inputs = known.layout.read(body)
                if known.inline:
                    return self._complete(known.form, inputs, None)
                return await self._queued(known.form, inputs, batch=len(body) <= _SMALL)
            except ConfonnxError as error:
                return _of_model(known.form.model, error_reply(error))
        segments = [unquote(segment) for segment in head.path.partition("?")[0].split("/")[1:]]
        if len(segments) > 1 and segments[-1] == "":
            segments.pop()  # the protocol's own documents write both /v2 and /v2/
        match segments:
            case ["v2", "models", name, "infer"]:
                return await self._infer(self._registry.find(name), head, body, recall)
            case ["v2", "models", name, "versions", version, "infer"]:
                return await self._infer(self._registry.find(name, version), head, body, recall)
        document = self._document(segments)
        if document is None:
            return plain_error(
                404,
                "no such resource; this server speaks the Open Inference Protocol v2",
                outcome=Outcome.NOT_FOUND,
            )
        return _method_error(head, "GET") or Reply(200, (document,))

    def stream_path(self, path: str) -> str:
        """Where each prediction of a stream at ``path`` is to be asked for. Raises ModelNotFoundError."""
        segments = [unquote(segment) for segment in path.partition("?")[0].split("/")[1:]]
        match segments:
            case ["v2", "models", name, "infer_stream"]:
                self._registry.find(name)
            case ["v2", "models", name, "versions", version, "infer_stream"]:
                self._registry.find(name, version)
            case _:
                raise ModelNotFoundError(
                    "a stream of predictions is asked for at /v2/models/NAME/infer_stream"
                )
        return path.partition("?")[0].removesuffix("_stream")

    def _document(self, segments: list[str]) -> bytes | None:
        """What GET gives for a path, or None where there is nothing."""
        match segments:
            case ["v2"]:
                return self._server
            case ["v2", "health", "live"]:
                return messages.encode_health(True)
            case ["v2", "health", "ready"]:
                return messages.encode_health(self._is_ready())
            case ["v2", "models"]:
                return self._models
            case ["v2", "models", name]:
                return self._metadata[_key(self._registry.find(name))]
            case ["v2", "models", name, "versions", version]:
                return self._metadata[_key(self._registry.find(name, version))]
            case ["v2", "models", name, "ready"]:
                return self._model_ready(name, None)
            case ["v2", "models", name, "versions", version, "ready"]:
                return self._model_ready(name, version)
        return None

    def _model_ready(self, name: str, version: str | None) -> bytes:
        model = self._registry.find(name, version)
        return messages.encode_model_ready(model.description.name, ready=self._is_ready())

    async def _infer(
        self, model: LoadedModel, head: bhttp.RequestHead, body: Buffer, recall: Recall
    ) -> Reply:
        try:
            if refusal := _method_error(head, "POST"):
                return _of_model(model, refusal)
            return await self._run(model, head, body, recall)
        except ConfonnxError as error:
            return _of_model(model, error_reply(error))

    async def _run(self, model: LoadedModel, head: bhttp.RequestHead, body: Buffer, recall: Recall) -> Reply:
        """Parse, infer, encode: small and short work here and now, the rest on the pool."""
        if len(body) > _SMALL:
            reply, prediction = await self._on_pool(
                model, lambda abort: self._parse_and_complete(model, head, body, recall.lasting, abort)
            )
            if prediction is not None:
                recall.keep(prediction)
            return reply
        form, inputs, prediction = self._parse(model, head, body, recall.lasting)
        if prediction is not None:
            recall.keep(prediction)
        if model.runs_inline(inputs):
            return self._complete(form, inputs, None)
        return await self._queued(form, inputs, batch=True)

    async def _queued(self, form: AnswerForm, inputs: Mapping[str, Value], *, batch: bool) -> Reply:
        """A request that was parsed already: together with others where it may and its model is batched."""
        batcher = self._batchers.get(_key(form.model)) if batch else None
        if batcher is None:
            return await self._on_pool(form.model, lambda abort: self._complete(form, inputs, abort))
        deadline = time.monotonic() + self._timeout
        return await batcher.run(inputs, form.wanted, partial(_written, form), deadline=deadline)

    async def _on_pool(self, model: LoadedModel, work: Callable[[Abort], T]) -> T:
        abort = Abort()
        submitted = time.monotonic()
        pending = [work]
        del work

        def run() -> T:
            self._metrics.queue_seconds.observe(time.monotonic() - submitted)
            # Taken out, so that nothing holds the request when its answer is there: its buffer is used again.
            return pending.pop()(abort)

        deadline = submitted + self._timeout
        return await self._scheduler.submit(run, kind=_key(model), deadline=deadline, abort=abort)

    def _parse_and_complete(
        self, model: LoadedModel, head: bhttp.RequestHead, body: Buffer, lasting: bool, abort: Abort
    ) -> tuple[Reply, Prediction | None]:
        form, inputs, prediction = self._parse(model, head, body, lasting)
        return self._complete(form, inputs, abort), prediction

    def _parse(
        self, model: LoadedModel, head: bhttp.RequestHead, body: Buffer, lasting: bool
    ) -> tuple[AnswerForm, Mapping[str, Value], Prediction | None]:
        """How to answer the request, its inputs, which are what the model takes, and what to remember where
        the memory is ``lasting``.
        """
        specs = model.description.inputs
        header_length = _header_length(head)
        request = binary.parse_infer_request(
            body,
            header_length=header_length,
            limits=self._limits,
            raw_input=specs[0] if len(specs) == 1 else None,
        )
        inputs = check_inputs({item.name: item.value for item in request.inputs}, specs, convert=False)
        form = AnswerForm(model, request)
        layout = None
        if lasting and header_length is not None and header_length <= _KEPT_HEADER:
            layout = layout_of(request.inputs, body, header_length=header_length)
        prediction = None if layout is None else Prediction(head, layout, form, model.runs_inline(inputs))
        return form, inputs, prediction

    def _complete(self, form: AnswerForm, inputs: Mapping[str, Value], abort: Abort | None) -> Reply:
        started = time.perf_counter()
        try:
            return _written(form, form.model.session.run(inputs, form.wanted, abort=abort))
        finally:
            self._metrics.inference_seconds.observe(time.perf_counter() - started)


def _written(form: AnswerForm, values: Mapping[str, Value]) -> Reply:
    header, tensors = form.write(values)
    description = form.model.description
    body = (header.json, *tensors)
    return Reply(200, body, header.content_type, header.fields, description.name, description.version)


def _of_model(model: LoadedModel, reply: Reply) -> Reply:
    return msgspec.structs.replace(reply, model=model.description.name, version=model.description.version)


def _method_error(head: bhttp.RequestHead, method: str) -> Reply | None:
    if head.method == method:
        return None
    return plain_error(405, f"this resource takes {method} only", fields=(("allow", method),))


def _header_length(head: bhttp.RequestHead) -> int | None:
    return binary.parse_header_length(head.field(binary.HEADER_LENGTH_FIELD))


def _metadata(model: LoadedModel, registry: Registry) -> bytes:
    description = model.description
    versions = tuple(
        other.description.version for other in registry.models if other.description.name == description.name
    )
    return messages.ModelMetadata(
        description.name, description.inputs, description.outputs, versions
    ).encode()


def _key(model: LoadedModel) -> tuple[str, str]:
    return model.description.name, model.description.version
