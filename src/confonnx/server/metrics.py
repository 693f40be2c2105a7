"""Prometheus metrics, on a port of their own.

Metrics leave the TEE in the clear, so they are coarse by design: counts and durations in wide buckets,
labelled with names of loaded models and a closed set of outcomes; no identifier, no size, nothing derived
from a tensor. Even so they tell the host which model is asked how often; ``--no-metrics`` keeps that from it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from confonnx.server.messages import HttpRequest, HttpResponse, problem

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would show when each kind of request came first

_BUCKETS = (0.001, 0.01, 0.1, 1.0, 10.0)  # seconds


class Outcome(StrEnum):
    """How a sealed request ended."""

    OK = "ok"
    INVALID = "invalid"
    NOT_FOUND = "not_found"
    UNAUTHENTICATED = "unauthenticated"
    STALE = "stale"
    OVERLOADED = "overloaded"
    DEADLINE = "deadline"
    FAILED = "failed"


class Unopened(StrEnum):
    """Why a request was refused before it was opened, or because it was opened before."""

    UNKNOWN_KEY = "unknown_key"
    UNOPENABLE = "unopenable"
    REPLAYED = "replayed"


class Metrics:
    """The instruments of one server. Mutable, as instruments are; safe to use from any thread."""

    def __init__(self) -> None:
        """All at zero."""
        self.registry = CollectorRegistry(auto_describe=True)
        self.in_flight = Gauge(
            "confonnx_in_flight", "Sealed requests being answered.", registry=self.registry
        )
        self.request_seconds = self._histogram("request", "From a complete sealed request to its answer.")
        self.decrypt_seconds = self._histogram("decrypt", "Opening a sealed request.")
        self.queue_seconds = self._histogram("queue", "Waiting for an inference thread.")
        self.inference_seconds = self._histogram("inference", "Running a model and encoding its outputs.")
        self.seal_seconds = self._histogram("seal", "Sealing an answer.")
        self._requests = Counter(
            "confonnx_requests_total",
            "Sealed requests answered.",
            ["model", "version", "outcome"],
            registry=self.registry,
        )
        self._unopened = Counter(
            "confonnx_unopened_total", "Requests refused unopened.", ["reason"], registry=self.registry
        )
        self._attestations = Counter(
            "confonnx_attestations_total", "Evidence asked for.", ["outcome"], registry=self.registry
        )
        for reason in Unopened:
            self._unopened.labels(reason.value)

    def count_request(self, model: str, version: str, outcome: Outcome) -> None:
        """One sealed request was answered. ``model`` and ``version`` are of a loaded model, or both empty."""
        self._requests.labels(model, version, outcome.value).inc()

    def count_unopened(self, reason: Unopened) -> None:
        """One request was refused unopened."""
        self._unopened.labels(reason.value).inc()

    def count_attestation(self, outcome: Outcome) -> None:
        """Evidence was given out, refused, or failed."""
        self._attestations.labels(outcome.value).inc()

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """A gauge whose value is asked for at each scrape. ``name`` without the prefix."""
        Gauge(f"confonnx_{name}", description, registry=self.registry).set_function(value)

    def _histogram(self, name: str, description: str) -> Histogram:
        return Histogram(
            f"confonnx_{name}_duration_seconds", description, buckets=_BUCKETS, registry=self.registry
        )


class MetricsHandler:
    """The application on the metrics port: ``GET /metrics`` and nothing else."""

    def __init__(self, metrics: Metrics) -> None:
        """Answers from ``metrics``."""
        self._metrics = metrics

    def wants_body(self, method: str, path: str) -> bool:
        """Never."""
        return False

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """The metrics in Prometheus' text format."""
        if request.path != "/metrics":
            return problem(404)
        if request.method not in ("GET", "HEAD"):
            return problem(405, fields={"allow": "GET, HEAD"})
        content = generate_latest(self._metrics.registry)
        return HttpResponse(200, {"content-type": CONTENT_TYPE_LATEST}, (content,))
