"""Prometheus metrics, on a port of their own.

Metrics leave the TEE in the clear, so they are coarse by design: counts and durations in wide buckets,
labelled with names of loaded models and a closed set of outcomes; no identifier, no size, nothing derived
from a tensor. Even so they tell the host which model is asked how often; ``--no-metrics`` keeps that from it.

What every request passes is counted here and handed to the library when it is scraped: its
own timers, gauges and label look-ups cost several times as much (docs/adr/0012-short-path.md).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from confonnx.server.messages import HttpRequest, HttpResponse, problem

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would show when each kind of request came first

_BUCKETS = (0.001, 0.01, 0.1, 1.0, 10.0)  # seconds
_COUNTED_TOGETHER = 256
"""Durations that are sorted into their buckets at once: a third of the work of one at a time."""


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


class Durations(Collector):
    """A histogram of seconds. Mutable; safe to use from any thread."""

    def __init__(self, name: str, description: str) -> None:
        """No observation yet. ``name`` with its prefix and unit."""
        self._name = name
        self._description = description
        self._new = deque[float]()  # what is not counted yet: one step to add to, without a lock
        self._lock = threading.Lock()  # guards what follows
        self._counts = [0] * (len(_BUCKETS) + 1)  # of each bucket alone; the last has no upper end
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._new.append(seconds)
        if len(self._new) >= _COUNTED_TOGETHER:
            self._count()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What the library asks for at a scrape."""
        self._count()
        with self._lock:
            counts, total = list(self._counts), self._sum
        names = [*map(floatToGoString, _BUCKETS), "+Inf"]
        cumulative = [(name, float(sum(counts[: number + 1]))) for number, name in enumerate(names)]
        yield HistogramMetricFamily(self._name, self._description, buckets=cumulative, sum_value=total)

    def _count(self) -> None:
        with self._lock:
            new = [self._new.popleft() for _ in range(len(self._new))]  # others only add meanwhile
            for bucket in np.searchsorted(_BUCKETS, new).tolist():  # an upper end belongs to its bucket
                self._counts[bucket] += 1
            self._sum += sum(new)


class Answered(Collector):
    """How many of something were answered, by model, version and outcome. Mutable; for one thread."""

    def __init__(self, name: str, description: str) -> None:
        """None. ``name`` with its prefix."""
        self._name = name
        self._description = description
        self._counts: dict[tuple[str, str, Outcome], int] = {}

    def count(self, model: str, version: str, outcome: Outcome) -> None:
        """One. ``model`` and ``version`` are of a loaded model, or both empty: so there are few."""
        key = model, version, outcome
        self._counts[key] = self._counts.get(key, 0) + 1

    def collect(self) -> Iterator[CounterMetricFamily]:
        """What the library asks for at a scrape."""
        labels = ["model", "version", "outcome"]
        family = CounterMetricFamily(self._name, self._description, labels=labels)
        for (model, version, outcome), count in self._counts.items():
            family.add_metric([model, version, outcome.value], count)
        yield family


class SealedRequest:
    """The clock of one sealed request, a context from the whole request to its answer. Mutable."""

    __slots__ = ("_answered", "_metrics", "_opened", "_started")

    def __init__(self, metrics: Metrics) -> None:
        """For ``metrics`` to count."""
        self._metrics = metrics
        self._opened = self._answered = 0.0

    def opened(self) -> None:
        """It was opened."""
        self._opened = time.perf_counter()

    def answered(self, model: str, version: str, outcome: Outcome) -> None:
        """There is an answer, to be sealed; see :meth:`Answered.count`."""
        self._answered = time.perf_counter()
        self._metrics.answered.count(model, version, outcome)

    def __enter__(self) -> SealedRequest:
        self._metrics.in_flight += 1
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        metrics, ended = self._metrics, time.perf_counter()
        metrics.in_flight -= 1
        metrics.decrypt_seconds.observe((self._opened or ended) - self._started)
        if self._answered:
            metrics.seal_seconds.observe(ended - self._answered)
        metrics.request_seconds.observe(ended - self._started)


class Metrics:
    """The instruments of one server. Mutable, as instruments are; what is no :class:`Durations` belongs to
    the event loop's thread.
    """

    def __init__(self) -> None:
        """All at zero."""
        self.registry = CollectorRegistry(auto_describe=True)
        self.in_flight = 0
        self.watch("in_flight", "Sealed requests being answered.", lambda: self.in_flight)
        self.request_seconds = self._durations("request", "From a complete sealed request to its answer.")
        self.decrypt_seconds = self._durations("decrypt", "Opening a sealed request.")
        self.queue_seconds = self._durations("queue", "Waiting for an inference thread.")
        self.inference_seconds = self._durations("inference", "Running a model and encoding its outputs.")
        self.seal_seconds = self._durations("seal", "Sealing an answer.")
        self.answered = Answered("confonnx_requests", "Sealed requests answered.")
        self.registry.register(self.answered)
        self._unopened = Counter(
            "confonnx_unopened_total", "Requests refused unopened.", ["reason"], registry=self.registry
        )
        self.streams = 0
        self.watch("streams", "Streams of predictions that are open.", lambda: self.streams)
        self.streamed = Answered("confonnx_stream_predictions", "Predictions answered in streams.")
        self.registry.register(self.streamed)
        self._attestations = Counter(
            "confonnx_attestations_total", "Evidence asked for.", ["outcome"], registry=self.registry
        )
        for reason in Unopened:
            self._unopened.labels(reason.value)

    def sealed_request(self) -> SealedRequest:
        """A context for one sealed request."""
        return SealedRequest(self)

    def count_unopened(self, reason: Unopened) -> None:
        """One request was refused unopened."""
        self._unopened.labels(reason.value).inc()

    def count_attestation(self, outcome: Outcome) -> None:
        """Evidence was given out, refused, or failed."""
        self._attestations.labels(outcome.value).inc()

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """A gauge whose value is asked for at each scrape. ``name`` without the prefix."""
        Gauge(f"confonnx_{name}", description, registry=self.registry).set_function(value)

    def _durations(self, name: str, description: str) -> Durations:
        durations = Durations(f"confonnx_{name}_duration_seconds", description)
        self.registry.register(durations)
        return durations


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
