"""Metrics: names, labels of a closed set, one resource."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
from prometheus_client.parser import text_string_to_metric_families

from confonnx.server.messages import HttpRequest
from confonnx.server.metrics import Metrics, MetricsHandler, Outcome, Unopened


def scrape(metrics: Metrics, method: str = "GET", path: str = "/metrics") -> tuple[int, str]:
    response = asyncio.run(MetricsHandler(metrics).handle(HttpRequest(method, path, {}, bytearray())))
    return response.status, b"".join(response.body).decode()


def test_names_and_labels() -> None:
    metrics = Metrics()
    metrics.answered.count("m", "1", Outcome.OK)
    metrics.count_unopened(Unopened.REPLAYED)
    metrics.count_attestation(Outcome.OK)
    metrics.watch("key_age_seconds", "Age.", lambda: 5.0)
    metrics.request_seconds.observe(0.5)
    status, text = scrape(metrics)
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name in ("request", "queue", "inference", "decrypt", "seal"):
        samples = families[f"confonnx_{name}_duration_seconds"].samples
        assert {sample.labels.get("le") for sample in samples} - {None} == {
            "0.001",
            "0.01",
            "0.1",
            "1.0",
            "10.0",
            "+Inf",
        }
    labels = {key for family in families.values() for sample in family.samples for key in sample.labels}
    assert labels == {"le", "model", "version", "outcome", "reason"}
    assert families["confonnx_key_age_seconds"].samples[0].value == 5.0
    assert "_created" not in text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("POST", "/metrics", 405), ("HEAD", "/metrics", 200)]
)
def test_other_requests(method: str, path: str, status: int) -> None:
    assert scrape(Metrics(), method, path)[0] == status


def test_bodies_are_not_read() -> None:
    assert not MetricsHandler(Metrics()).wants_body("POST", "/metrics")


def test_two_servers_in_one_process_count_apart() -> None:
    one, two = Metrics(), Metrics()
    one.count_unopened(Unopened.REPLAYED)
    assert two.registry.get_sample_value("confonnx_unopened_total", {"reason": "replayed"}) == 0.0


def test_durations_are_counted_in_their_buckets() -> None:
    metrics = Metrics()
    for seconds in (0.0, 0.001, 0.002, 10.0, 11.0):
        metrics.seal_seconds.observe(seconds)
    name = "confonnx_seal_duration_seconds"
    counts = [
        metrics.registry.get_sample_value(f"{name}_bucket", {"le": le})
        for le in ("0.001", "0.01", "0.1", "1.0", "10.0", "+Inf")
    ]
    assert counts == [2, 3, 3, 3, 4, 5]  # an upper end is in its bucket, and each holds those below
    assert metrics.registry.get_sample_value(f"{name}_count") == 5
    assert metrics.registry.get_sample_value(f"{name}_sum") == pytest.approx(21.003)


def count(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(f"confonnx_{name}_duration_seconds_count") or 0


def test_what_fails_is_timed_and_no_longer_in_flight() -> None:
    metrics = Metrics()
    with suppress(KeyError), metrics.sealed_request():
        assert metrics.registry.get_sample_value("confonnx_in_flight") == 1
        time.sleep(0.002)
        raise KeyError
    assert metrics.registry.get_sample_value("confonnx_in_flight") == 0
    assert [count(metrics, name) for name in ("request", "decrypt", "seal")] == [1, 1, 0]
    for name in ("request", "decrypt"):
        assert (metrics.registry.get_sample_value(f"confonnx_{name}_duration_seconds_sum") or 0) >= 0.002


def test_each_part_of_a_request_is_timed() -> None:
    metrics = Metrics()
    with metrics.sealed_request() as times:
        times.opened()
        times.answered("m", "1", Outcome.OK)
        time.sleep(0.002)
    assert [count(metrics, name) for name in ("request", "decrypt", "seal")] == [1, 1, 1]
    opening, sealing = (
        metrics.registry.get_sample_value(f"confonnx_{name}_duration_seconds_sum") or 0
        for name in ("decrypt", "seal")
    )
    assert opening < 0.002 <= sealing


def test_counts_of_requests() -> None:
    metrics = Metrics()
    for outcome in (Outcome.OK, Outcome.FAILED, Outcome.OK):
        metrics.answered.count("m", "1", outcome)
    labels = {"model": "m", "version": "1", "outcome": "ok"}
    assert metrics.registry.get_sample_value("confonnx_requests_total", labels) == 2
