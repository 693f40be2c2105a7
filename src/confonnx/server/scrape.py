"""One scrape for several processes: what each counts, added up.

Each process says its numbers in Prometheus' own text format, which the library writes and reads, so that
there is no second format and nothing of it on a disk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from confonnx.server.messages import HttpRequest, HttpResponse, problem

_THE_SAME = frozenset({"confonnx_key_age_seconds"})
"""Gauges that say the same in every process; everything else is counted by one process and adds up."""


class ScrapeHandler:
    """The application on the metrics port of several processes: ``GET /metrics`` and nothing else."""

    def __init__(self, ask: Callable[[], Awaitable[Sequence[str]]]) -> None:
        """``ask`` gives the text of each process, or raises OSError or TimeoutError where one is silent."""
        self._ask = ask

    def wants_body(self, method: str, path: str) -> bool:
        """Never."""
        return False

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """The sum, or 503: part of it would look like counters that went back."""
        if request.path != "/metrics":
            return problem(404)
        if request.method not in ("GET", "HEAD"):
            return problem(405, fields={"allow": "GET, HEAD"})
        try:
            texts = await self._ask()
        except (OSError, TimeoutError):
            return problem(503, fields={"retry-after": "1"})
        return HttpResponse(200, {"content-type": CONTENT_TYPE_LATEST}, (add_up(texts),))


def add_up(texts: Iterable[str]) -> bytes:
    """The sum of scrapes, as a scrape. A sample that only some have counts as 0 in the others."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            families.setdefault(family.name, family)
            known = values.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, tuple(sample.labels.items()))
                before = known.get(key, 0.0)
                known[key] = max(before, sample.value) if family.name in _THE_SAME else before + sample.value
    registry = CollectorRegistry()
    registry.register(_Sums(tuple(_with(family, values[name]) for name, family in families.items())))
    return generate_latest(registry)


class _Sums(Collector):
    """Families that are given out as they are."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield from self._families


def _with(family: Metric, values: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> Metric:
    result = Metric(family.name, family.documentation, family.type)
    for (name, labels), value in values.items():
        result.add_sample(name, dict(labels), value)
    return result
