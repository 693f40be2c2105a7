"""Metrics: names, labels of a closed set, one resource."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from confonnx.server.messages import HttpRequest
from confonnx.server.metrics import Metrics, MetricsHandler, Outcome, Unopened


def scrape(metrics: Metrics, method: str = "GET", path: str = "/metrics") -> tuple[int, str]:
    response = asyncio.run(MetricsHandler(metrics).handle(HttpRequest(method, path, {}, bytearray())))
    return response.status, b"".join(response.body).decode()


def test_names_and_labels() -> None:
    metrics = Metrics()
    metrics.count_request("m", "1", Outcome.OK)
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
