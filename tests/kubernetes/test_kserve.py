"""The KServe runtime has fields that KServe's own models name, and its pod is hardened as the chart's."""

from __future__ import annotations

import re
from typing import Any

import pytest

from confonnx.cli.server_options import cli_options
from confonnx.server.settings import Settings
from confonnx.server.settings_sources import load_settings
from tests.kubernetes.chart import Engine, Object
from tests.kubernetes.profiles import kserve_pod, load_kserve, restricted_violations


@pytest.fixture(name="runtime")
def _runtime(helm: Engine) -> Object:
    return load_kserve(helm, "cluster-serving-runtime.yaml")


def _unknown_fields(helm: Engine, value: dict[str, Any], model: str) -> set[str]:
    return set(value) - set(helm.ask("kserve_fields", model=model))


def test_the_runtime_has_fields_of_kserve(helm: Engine, runtime: Object) -> None:
    assert (runtime["apiVersion"], runtime["kind"]) == ("serving.kserve.io/v1alpha1", "ClusterServingRuntime")
    assert _unknown_fields(helm, runtime, "v1alpha1_cluster_serving_runtime") == set()
    assert _unknown_fields(helm, runtime["spec"], "v1alpha1_serving_runtime_spec") == set()
    for model_format in runtime["spec"]["supportedModelFormats"]:
        assert _unknown_fields(helm, model_format, "v1alpha1_supported_model_format") == set()
    assert _unknown_fields(helm, {"bogus": 1}, "v1alpha1_serving_runtime_spec") == {"bogus"}


def test_the_service_has_fields_of_kserve(helm: Engine) -> None:
    service = load_kserve(helm, "inference-service.yaml")
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert _unknown_fields(helm, service["spec"], "v1beta1_inference_service_spec") == set()
    predictor = service["spec"]["predictor"]
    assert _unknown_fields(helm, predictor, "v1beta1_predictor_spec") == set()
    assert _unknown_fields(helm, predictor["model"], "v1beta1_model_spec") == set()
    assert predictor["model"]["runtime"] == "confonnx"


def test_its_pod_is_hardened_as_the_charts(helm: Engine) -> None:
    pod = kserve_pod(helm)
    assert helm.ask("schema_errors", item=pod) == []
    (container,) = pod["spec"]["containers"]
    assert container["name"] == "kserve-container"
    chart = helm.render("tee=cvm,cvm.deviceAccess=device-plugin,cvm.deviceResource=smarter-devices/tpmrm0")
    assert container["securityContext"] == chart.container["securityContext"]
    assert pod["spec"]["securityContext"].items() <= chart.pod["securityContext"].items()
    assert restricted_violations(pod["spec"]) == set()
    assert container["resources"]["limits"].keys() >= {"cpu", "memory", "smarter-devices/tpmrm0"}


def test_the_server_accepts_its_arguments(runtime: Object, monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = runtime["spec"]["containers"]
    known = {parameter.name for parameter in cli_options()}
    options = {}
    for argument in container["args"]:  # the image says `serve`
        name, value = re.fullmatch(r"--([a-z-]+)=(.+)", argument).groups()  # type: ignore[union-attr]
        options[name.replace("-", "_")] = value.replace("{{.Name}}", "mymodel")
    assert options.keys() <= known
    for item in container["env"]:
        monkeypatch.setenv(item["name"], item["value"])
    settings, warnings = load_settings(options)
    assert isinstance(settings, Settings)
    assert warnings == ()
    assert settings.require_tee
    (port,) = container["ports"]
    assert port["containerPort"] == settings.http_port == container["readinessProbe"]["httpGet"]["port"]
    assert int(runtime["spec"]["annotations"]["prometheus.kserve.io/port"]) == settings.metrics_port


def test_it_takes_no_models_from_other_runtimes(runtime: Object) -> None:
    assert [item["autoSelect"] for item in runtime["spec"]["supportedModelFormats"]] == [False]
