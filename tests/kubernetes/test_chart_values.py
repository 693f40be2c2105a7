"""Values of the chart: the documented ones, and what a wrong one is answered with."""

from __future__ import annotations

import json
import re

import pytest

from confonnx.server.settings import Settings
from tests.kubernetes.chart import CHART, DIGEST, IMAGE, ChartError, Engine

OWNED = {  # options that other values of the chart decide about
    *("address", "http_port", "url_prefix", "metrics", "metrics_port", "metrics_address"),
    *("auth_key", "auth_file", "tee", "require_tee"),
    *("model_path", "model_repository", "model_name", "drain_timeout"),
}

# What is set, and what the message has to say: the value, and for a contradiction the way out.
WRONG = [
    ("image=", ["image is not set", "docker/server/build_image.sh"]),
    (
        "image=registry.example/model-server:latest",
        ['"registry.example/model-server:latest"', "dangerousImageByTag"],
    ),
    ("image=Registry/UPPER CASE", ["/image"]),
    (f"image=registry.example/model-server@{DIGEST[:-1]}", ["/image"]),
    ("tee=sev", ["/tee", "'sgx', 'cvm', 'none'"]),
    ("tee=null", ["missing property 'tee'"]),
    ("tee=cvm,cvm.tee=null", ["/cvm", "missing property 'tee'"]),
    ("replicas=0", ["/replicas", "want 1"]),
    ("replicas=two", ["/replicas"]),
    ("replicas=2", ["replica", "keys of its own", "clientsKeptByGateway"]),
    ("autoscaling.enabled=true", ["replica", "clientsKeptByGateway"]),
    (
        "clientsKeptByGateway=true,autoscaling.enabled=true,autoscaling.minReplicas=5",
        ["autoscaling.minReplicas is 5", "maxReplicas, 4"],
    ),
    ("name=Model_Server", ["/name"]),
    ("urlPrefix=mymodel", ["/urlPrefix"]),
    ("urlPrefix=/a?b", ["/urlPrefix"]),
    ("host=https://model.example.org/", ["/host"]),
    ("letsEncrypt.enabled=true", ["host is empty", "Set host"]),
    ("letsEncrypt.mode=test", ["/letsEncrypt/mode", "'staging', 'production'"]),
    ("letsEncrypt.enable=true", ["/letsEncrypt", "'enable' not allowed"]),
    (
        "host=a.example,letsEncrypt.enabled=true,tlsSecret=mine",
        ["letsEncrypt.enabled", "tlsSecret", "Leave the other"],
    ),
    ("host=a.example,tlsSecret=mine,gateway.enabled=false", ["nothing would use the certificate"]),
    (
        "host=a.example,tlsSecret=mine,gateway.parentRefs[0].name=shared",
        ["gateway.parentRefs", "its own listeners"],
    ),
    ("sgx.epcMemInMiB=512Mi", ["/sgx/epcMemInMiB"]),
    ("sgx.epcMemInMiB=0", ["/sgx/epcMemInMiB"]),
    (
        "settings.request_timeout=30s",
        ["settings holds request_timeout", "signed manifest", "leave settings empty"],
    ),
    ("tee=none,settings.reqest_timeout=30s", ["'reqest_timeout' not allowed"]),
    ("tee=none,settings.auth_key=secret", ["'auth_key' not allowed"]),
    ("tee=none,settings.http_port=80", ["'http_port' not allowed"]),
    ("auth.where=", ["auth.where is not set", "server", "image", "ingress", "none"]),
    ("auth.where=gateway", ["/auth/where"]),
    ("auth.where=server", ["auth.where is server and tee is sgx", "CONFIG_DIR", "auth.where=image"]),
    ("auth.where=ingress", ["auth.where is ingress", "gateway.envoyGateway=true"]),
    (
        "auth.where=ingress,gateway.enabled=false,ingress.enabled=true,ingress.className=a,ingress.kind=other",
        ["auth.where is ingress", "ingress.kind=nginx"],
    ),
    ("tee=cvm,cvm.deviceAccess=device-plugin", ["cvm.deviceResource is empty", "smarter-devices/tpmrm0"]),
    ("tee=cvm,cvm.deviceAccess=device-plugin,cvm.tee=tdx", ["configfs", "cvm.deviceAccess=privileged"]),
    ("tee=cvm,cvm.deviceResource=a.example/b", ['"a.example/b"', "cvm.deviceAccess=device-plugin"]),
    ("tee=cvm,cvm.tee=simulated", ["/cvm/tee"]),
    ("model.source=volume", ["model.source is volume and tee is sgx", "model.source=image"]),
    ("model.name=digits", ["model.name is set and tee is sgx"]),
    ("tee=cvm,model.path=a.onnx", ["model.source is image", "volume or initContainer"]),
    ("tee=cvm,model.source=volume,model.claim=m", ["model.path", "model.repository"]),
    ("tee=cvm,model.source=volume,model.path=a.onnx", ["model.claim is empty"]),
    ("tee=cvm,model.source=volume,model.claim=m,model.path=a,model.repository=b", ["exclude each other"]),
    ("tee=cvm,model.source=volume,model.claim=m,model.repository=b,model.name=c", ["model.name names"]),
    ("tee=cvm,model.source=volume,model.claim=m,model.path=../etc/passwd", ["/model/path"]),
    ("tee=cvm,model.source=volume,model.claim=m,model.path=/etc/passwd", ["/model/path"]),
    ("tee=cvm,model.source=initContainer,model.path=a.onnx", ["model.initContainer.image is empty"]),
    (
        "tee=cvm,model.source=initContainer,model.path=a.onnx,model.initContainer.image=busybox:1",
        ["model.initContainer.image", '"busybox:1"', "dangerousImageByTag"],
    ),
    ("ingress.enabled=true,ingress.className=nginx", ["gateway.enabled and ingress.enabled are both true"]),
    (
        "gateway.enabled=false,ingress.enabled=true",
        ["ingress.className is empty", "kubectl get ingressclass"],
    ),
    ("gateway.className=", ["gateway.className is empty", "kubectl get gatewayclass"]),
    ("gateway.requestTimeout=5 minutes", ["/gateway/requestTimeout"]),
    (
        "gateway.enabled=false,ingress.enabled=true,ingress.className=traefik,ingress.kind=other",
        ["ingress.kind is other", "urlPrefix"],
    ),
    ("tee=cvm,settings.fetch_endorsements=true", ["settings.fetch_endorsements", "networkPolicy.egress"]),
    (
        "metrics.enabled=false,metrics.serviceMonitor.enabled=true",
        ["metrics.serviceMonitor.enabled is true and metrics.enabled is false"],
    ),
    ("resources.limits.memory=2 GB", ["/resources/limits/memory"]),
    ("unheardOf=1", ["'unheardOf' not allowed"]),
]


@pytest.mark.parametrize(("expression", "expected"), WRONG, ids=[expression for expression, _ in WRONG])
def test_wrong_values(helm: Engine, expression: str, expected: list[str]) -> None:
    message = _refusal(helm, expression)
    for part in expected:
        assert part in message


def test_every_check_has_a_row(helm: Engine) -> None:
    """Each ``fail`` of the chart is reached by the table above."""
    checks = (CHART / "templates" / "_checks.tpl").read_text("utf-8")
    texts = re.findall(r'fail \(?(?:printf )?"((?:[^"\\]|\\.)*)"', checks)
    assert len(texts) == checks.count("fail ")
    said = [_refusal(helm, expression) for expression, _ in WRONG]
    patterns = {text: re.sub(r"%[dqs]", ".*", re.escape(text.replace('\\"', '"'))) for text in texts}
    assert [
        text for text, pattern in patterns.items() if not any(re.search(pattern, line) for line in said)
    ] == []


def _refusal(helm: Engine, expression: str) -> str:
    with pytest.raises(ChartError) as caught:
        helm.render(expression)
    return str(caught.value)


@pytest.mark.parametrize(
    ("expression", "nodes", "missing"),
    [
        ("tee=sgx", [{"cpu": "2"}], "sgx.intel.com/epc"),
        ("tee=sgx", [{"cpu": "2"}, {"sgx.intel.com/epc": "0"}], "sgx.intel.com/epc"),
        ("tee=sgx", [{"cpu": "2"}, {"sgx.intel.com/epc": "8589934592"}], None),
        ("tee=sgx,sgx.legacyResourceName=true", [{"sgx.intel.com/epc": "1"}], "sgx_epc_mem_in_MiB"),
        ("tee=sgx,sgx.explicitDevices=true", [{"sgx.intel.com/epc": "1"}], "sgx.intel.com/enclave"),
        (
            "tee=cvm,cvm.deviceAccess=device-plugin,cvm.deviceResource=smarter-devices/tpmrm0",
            [{"cpu": "2"}],
            "smarter-devices/tpmrm0",
        ),
        ("tee=cvm", [{"cpu": "2"}], None),
        ("tee=sgx,checkNodes=false", [{"cpu": "2"}], None),
    ],
)
def test_a_cluster_without_the_device_plugin(
    helm: Engine, expression: str, nodes: list[dict[str, str]], missing: str | None
) -> None:
    """Helm asks a stand-in for the API server, as `helm install` asks the cluster."""
    order = {"chart": str(CHART), "values": helm.values(expression), "name": "m", "namespace": "n"}
    if missing is None:
        assert helm.ask("render_in_cluster", nodes=nodes, **order)
        return
    with pytest.raises(ChartError) as caught:
        helm.ask("render_in_cluster", nodes=nodes, **order)
    assert missing in str(caught.value)
    assert f"nodes ({len(nodes)})" in str(caught.value)
    fix = "az aks enable-addons --addons confcom" if "sgx" in missing else "cvm.deviceAccess=privileged"
    assert fix in str(caught.value)


def test_the_documented_values(helm: Engine) -> None:
    """Of onnx-server-openenclave's guide: image, replicas, urlPrefix, host, letsEncrypt, sgx.epcMemInMiB."""
    rendered = helm.render(
        f"image={IMAGE},replicas=1,urlPrefix=/mymodel,host=test.westeurope.cloudapp.azure.com,"
        "letsEncrypt.enabled=true,letsEncrypt.mode=staging,sgx.epcMemInMiB=10"
    )
    assert rendered.container["image"] == IMAGE
    assert rendered.container["resources"]["limits"]["sgx.intel.com/epc"] == "10Mi"
    assert rendered.one("Certificate")["spec"]["issuerRef"]["name"] == "letsencrypt-staging"
    assert "https://test.westeurope.cloudapp.azure.com/mymodel/" in rendered.notes
    assert rendered.one("Deployment")["metadata"]["labels"]["app"] == "model-server"  # kubectl logs -l app=…


def test_a_tag_has_to_be_wanted(helm: Engine) -> None:
    rendered = helm.render("image=registry.example/model-server:latest,dangerousImageByTag=true")
    assert rendered.container["imagePullPolicy"] == "Always"
    assert helm.render().container["imagePullPolicy"] == "IfNotPresent"


def test_settings_are_those_of_the_server() -> None:
    """A new option of the server belongs in ``settings`` of values.schema.json, or to a value of its own."""
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    assert schema["properties"]["settings"]["properties"].keys() == Settings.model_fields.keys() - OWNED


def test_measured_settings_are_named() -> None:
    """Whoever changes them has to know that --enclave-hash changes too."""
    text = (CHART / "values.yaml").read_text("utf-8")
    comment = text.split("# Measured, so part of", 1)[1].split("\nsettings:", 1)[0]
    for name in Settings.model_construct().measured():
        assert name in comment, name


def test_every_value_has_a_schema_and_a_default(helm: Engine) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    (values,) = helm.ask("parse", text=(CHART / "values.yaml").read_text("utf-8"))
    assert schema["properties"].keys() - {"global"} == values.keys()
    for name, value in values.items():
        inner = schema["properties"][name].get("properties")
        if inner is not None and name != "settings":
            assert inner.keys() == value.keys(), name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("134217728", "134217728"),
        ("1000000000000", "1000000000000"),
        ("0.5", "0.5"),
        ("true", "true"),
        ("128MiB", "128MiB"),
    ],
)
def test_numbers_stay_as_written(helm: Engine, value: str, text: str) -> None:
    (settings,) = helm.ask("parse", text=f"max_request_bytes: {value}")  # as in a file of values
    rendered = helm.render(values={"tee": "none", "settings": settings})
    assert rendered.environment["CONFONNX_MAX_REQUEST_BYTES"] == text
