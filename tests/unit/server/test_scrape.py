"""The scrape of several processes: sums of what they count, the same of what they share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from confonnx.server.messages import HttpRequest, HttpResponse
from confonnx.server.metrics import Metrics, MetricsHandler, Outcome, Unopened
from confonnx.server.scrape import ScrapeHandler, add_up


def text_of(metrics: Metrics) -> str:
    answer = asyncio.run(MetricsHandler(metrics).handle(HttpRequest("GET", "/metrics", {}, bytearray())))
    return b"".join(answer.body).decode()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def busy(*, times: int, age: float) -> Metrics:
    metrics = Metrics()
    for _ in range(times):
        metrics.answered.count("m", "1", Outcome.OK)
        metrics.count_unopened(Unopened.REPLAYED)
        metrics.request_seconds.observe(0.05)
    metrics.watch("connections", "Open connections.", lambda: times)
    metrics.watch("key_age_seconds", "Age of the current key.", lambda: age)
    return metrics


def test_counters_histograms_and_gauges_add_up() -> None:
    one, two = busy(times=2, age=5.0), busy(times=3, age=6.0)
    two.answered.count("only-here", "1", Outcome.FAILED)
    sum_ = samples(add_up([text_of(one), text_of(two)]).decode())
    ok = frozenset({"model": "m", "version": "1", "outcome": "ok"}.items())
    failed = frozenset({"model": "only-here", "version": "1", "outcome": "failed"}.items())
    assert sum_["confonnx_requests_total", ok] == 5
    assert sum_["confonnx_requests_total", failed] == 1
    assert sum_["confonnx_unopened_total", frozenset({("reason", "replayed")})] == 5
    assert sum_["confonnx_request_duration_seconds_bucket", frozenset({("le", "0.01")})] == 0
    assert sum_["confonnx_request_duration_seconds_bucket", frozenset({("le", "0.1")})] == 5
    assert sum_["confonnx_request_duration_seconds_count", frozenset()] == 5
    assert sum_["confonnx_request_duration_seconds_sum", frozenset()] == pytest.approx(0.25)
    assert sum_["confonnx_connections", frozenset()] == 5
    assert sum_["confonnx_key_age_seconds", frozenset()] == 6.0


def test_the_sum_of_one_is_that_one() -> None:
    text = text_of(busy(times=7, age=1.0))
    assert samples(add_up([text]).decode()) == samples(text)


def ask(request: HttpRequest, answer: Sequence[str] | Exception) -> HttpResponse:
    async def texts() -> Sequence[str]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return asyncio.run(ScrapeHandler(texts).handle(request))


def test_one_resource() -> None:
    text = text_of(busy(times=1, age=0.0))
    answer = ask(HttpRequest("GET", "/metrics", {}, bytearray()), [text])
    assert answer.status == 200
    assert answer.fields["content-type"].startswith("text/plain")
    assert ask(HttpRequest("GET", "/", {}, bytearray()), [text]).status == 404
    assert ask(HttpRequest("POST", "/metrics", {}, bytearray()), [text]).status == 405


@pytest.mark.parametrize("error", [TimeoutError(), BrokenPipeError()])
def test_half_a_sum_is_none(error: Exception) -> None:
    answer = ask(HttpRequest("GET", "/metrics", {}, bytearray()), error)
    assert (answer.status, answer.fields["retry-after"]) == (503, "1")


def test_bodies_are_not_read() -> None:
    async def texts() -> Sequence[str]:
        return ()

    assert not ScrapeHandler(texts).wants_body("POST", "/metrics")
