"""Every profile of the chart, with and without TLS, behind each kind of gateway: what comes out is what
Kubernetes, its custom resources and PodSecurity accept, and what the server can be run with."""

from __future__ import annotations

import re

import pytest

from confonnx.server.settings_sources import load_settings
from tests.kubernetes.chart import (
    CHART,
    IMAGE,
    NAMESPACE,
    Engine,
    Object,
    Rendered,
    custom_resource_errors,
    merged,
)
from tests.kubernetes.profiles import CASES, PRIVILEGED, TEES, TLS, WAYS, restricted_violations


def test_objects_follow_the_schemas(helm: Engine) -> None:
    """All profiles in one test: each start of Node reads some megabytes of schemas."""
    objects = {
        (case, item["kind"], item["metadata"]["name"]): item
        for case, values in CASES.items()
        for item in helm.render(values=values).objects
    }
    kinds = {kind for _, kind, _ in objects}
    assert kinds >= {
        "Deployment",
        "Service",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
    }
    assert kinds >= {"Gateway", "HTTPRoute", "Ingress", "Certificate", "ServiceMonitor"}
    custom = {key: item for key, item in objects.items() if _is_custom(item)}
    found = dict(zip(custom, custom_resource_errors(list(custom.values())), strict=True))
    for key, item in objects.items():
        if key not in custom and "envoyproxy" not in item["apiVersion"]:
            found[key] = helm.ask("schema_errors", item=item)
    assert {key: errors for key, errors in found.items() if errors} == {}
    assert {item["metadata"]["namespace"] for item in objects.values()} == {NAMESPACE}


def test_the_schemas_refuse_what_is_wrong(helm: Engine) -> None:
    """Else the test above would show nothing."""
    rendered = helm.render("host=a.example,letsEncrypt.enabled=true,metrics.serviceMonitor.enabled=true")
    for kind in ("Deployment", "NetworkPolicy"):
        item = rendered.one(kind)
        item["spec"]["unheard"] = 1
        assert helm.ask("schema_errors", item=item), kind
    custom = [rendered.one("Gateway"), rendered.all("HTTPRoute")[0], rendered.one("Certificate")]
    custom += [rendered.one("ServiceMonitor")]
    for item in custom:
        item["spec"]["unheard"] = 1
    assert all(custom_resource_errors(custom))
    custom[0]["spec"]["listeners"] = "none"
    assert "listeners" in custom_resource_errors(custom)[0][0]


@pytest.mark.parametrize("case", CASES)
def test_lint_has_nothing_to_say(helm: Engine, case: str) -> None:
    assert helm.ask("lint", chart=str(CHART), values=merged(helm.values(), CASES[case])) == []


def test_lint_of_the_defaults(helm: Engine) -> None:
    """`helm lint samples/k8s`, where `image` and `auth.where` are yet to be given."""
    assert helm.ask("lint", chart=str(CHART), values={}) == []


def test_lint_speaks_up(helm: Engine) -> None:
    """Else the test above would show nothing."""
    assert helm.ask("lint", chart=str(CHART), values={"tee": "sev"})


@pytest.mark.parametrize("profile", TEES)
def test_pod_security_restricted_or_said_not_to_be(helm: Engine, profile: str) -> None:
    rendered = helm.render(values=TEES[profile])
    violations = restricted_violations(rendered.pod)
    if profile in PRIVILEGED:
        assert "privileged" in violations
        assert "privileged" in rendered.notes
    elif profile == "sgx-legacy":
        assert violations == {"volume aesmd is a hostPath"}
    else:
        assert violations == set()


@pytest.mark.parametrize("profile", TEES)
def test_every_pod_is_hardened(helm: Engine, profile: str) -> None:
    rendered = helm.render(values=TEES[profile])
    pod, container = rendered.pod, rendered.container
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # no variables of other Services
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["image"] == IMAGE
    for volume in pod["volumes"]:
        if "emptyDir" in volume:
            assert volume["emptyDir"]["medium"] == "Memory", volume
            assert volume["emptyDir"]["sizeLimit"], volume
    assert {item["containerPort"] for item in container["ports"]} == {8888, 8082}
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["startupProbe"]["httpGet"]["path"] == "/readyz"


def test_an_init_container_has_no_rights_that_only_the_server_needs(helm: Engine) -> None:
    rendered = helm.render("tee=cvm", values={"model": TEES["none"]["model"]})
    (init,) = rendered.pod["initContainers"]
    assert restricted_violations({**rendered.pod, "containers": [init], "initContainers": []}) == set()


@pytest.mark.parametrize("profile", TEES)
def test_the_server_accepts_its_variables(
    helm: Engine, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own reader of settings finds no name or value that it does not know."""
    size = {} if profile.startswith("sgx") else {"settings": {"max_request_bytes": 128 << 20}}
    rendered = helm.render(values=merged(TEES[profile], size))
    environment = rendered.environment
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings, warnings = load_settings({})
    assert warnings == ()
    if profile.startswith("sgx"):
        assert environment == {}  # the enclave's manifest has them
        return
    assert settings.max_request_bytes == 128 << 20
    assert settings.url_prefix == "/mymodel"
    assert (settings.http_port, settings.metrics_port) == (8888, 8082)
    assert settings.drain_timeout.total_seconds() == 30
    assert settings.require_tee is (profile != "none")
    assert str(settings.tee) == {"none": "simulated", "cvm-tdx": "tdx"}.get(profile, "azure-snp")


def test_a_pod_outlives_its_drain(helm: Engine) -> None:
    rendered = helm.render("tee=none,drainSeconds=120")
    assert rendered.environment["CONFONNX_DRAIN_TIMEOUT"] == "120s"
    assert rendered.pod["terminationGracePeriodSeconds"] == 135
    assert rendered.container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


@pytest.mark.parametrize(
    ("expression", "limits"),
    [
        ("sgx.epcMemInMiB=96", {"sgx.intel.com/epc": "96Mi"}),
        (
            "sgx.epcMemInMiB=96,sgx.explicitDevices=true",
            {"sgx.intel.com/epc": "96Mi", "sgx.intel.com/enclave": 1, "sgx.intel.com/provision": 1},
        ),
        ("sgx.epcMemInMiB=10,sgx.legacyResourceName=true", {"kubernetes.azure.com/sgx_epc_mem_in_MiB": 10}),
        ("tee=none", {}),
        ("tee=cvm", {}),
        (
            "tee=cvm,cvm.deviceAccess=device-plugin,cvm.deviceResource=smarter-devices/tpmrm0",
            {"smarter-devices/tpmrm0": 1},
        ),
    ],
)
def test_devices(helm: Engine, expression: str, limits: dict[str, object]) -> None:
    found = helm.render(expression).container["resources"]["limits"]
    assert {name: value for name, value in found.items() if "/" in name} == limits


def test_https_serves_and_http_redirects(helm: Engine) -> None:
    rendered = helm.render(values=TLS["lets-encrypt"])
    listeners = {item["name"]: item for item in rendered.one("Gateway")["spec"]["listeners"]}
    assert listeners["https"]["tls"]["certificateRefs"] == [{"name": "tls-secret"}]
    assert rendered.one("Certificate")["spec"]["secretName"] == "tls-secret"
    serving, redirect = rendered.all("HTTPRoute")
    assert serving["spec"]["parentRefs"] == [{"name": "model-gateway", "sectionName": "https"}]
    assert redirect["spec"]["parentRefs"] == [{"name": "model-gateway", "sectionName": "http"}]
    assert "backendRefs" not in redirect["spec"]["rules"][0]
    assert "https://model.example.org/mymodel/" in rendered.notes


def test_an_own_certificate_is_not_asked_for(helm: Engine) -> None:
    rendered = helm.render(values=TLS["own-certificate"])
    assert rendered.all("Certificate") == []
    assert rendered.one("Gateway")["spec"]["listeners"][1]["tls"]["certificateRefs"] == [{"name": "mine"}]


def test_a_gateway_that_exists(helm: Engine) -> None:
    parent = {"name": "shared", "namespace": "edge", "sectionName": "https"}
    rendered = helm.render(values={"gateway": {"parentRefs": [parent]}})
    assert rendered.all("Gateway") == []
    assert rendered.one("HTTPRoute")["spec"]["parentRefs"] == [parent]


def test_the_prefix_is_taken_off(helm: Engine) -> None:
    (rule,) = helm.render("urlPrefix=/a/b/").one("HTTPRoute")["spec"]["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/a/b"}}]
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}
    assert rule["filters"] == [{"type": "URLRewrite", "urlRewrite": {"path": path}}]
    (bare,) = helm.render("urlPrefix=").one("HTTPRoute")["spec"]["rules"]
    assert bare["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert "filters" not in bare


def test_envoy_gateway_checks_passwords_and_keeps_clients(helm: Engine) -> None:
    """Its resources have no schema here: the fields are those of Envoy Gateway's tasks "Basic Authentication"
    and "Load Balancing"."""
    rendered = helm.render("auth.where=ingress,gateway.envoyGateway=true,replicas=2")
    target = [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "model-server"}]
    assert rendered.one("SecurityPolicy")["spec"] == {
        "targetRefs": target,
        "basicAuth": {"users": {"name": "api-auth"}},
    }
    assert rendered.one("BackendTrafficPolicy")["spec"] == {
        "targetRefs": target,
        "loadBalancer": {"type": "ConsistentHash", "consistentHash": {"type": "SourceIP"}},
    }


def test_credentials_come_as_a_file(helm: Engine) -> None:
    rendered = helm.render("tee=cvm,auth.where=server")
    (volume,) = [item for item in rendered.pod["volumes"] if item["name"] == "auth"]
    assert volume["secret"] == {
        "secretName": "api-auth",
        "defaultMode": 0o440,
        "items": [{"key": "credentials", "path": "credentials"}],
    }
    assert rendered.environment["CONFONNX_AUTH_FILE"] == "/run/confonnx/auth/credentials"
    mount = {"name": "auth", "mountPath": "/run/confonnx/auth", "readOnly": True}
    assert mount in rendered.container["volumeMounts"]


def test_a_new_pod_is_ready_before_the_old_one_goes(helm: Engine) -> None:
    strategy = helm.render().one("Deployment")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    recreated = helm.render("updateStrategy=Recreate").one("Deployment")["spec"]["strategy"]
    assert recreated == {"type": "Recreate"}


def test_a_single_replica_lets_its_node_be_drained(helm: Engine) -> None:
    assert helm.render().one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_scaling_in_takes_its_time(helm: Engine) -> None:
    scaled = helm.render("autoscaling.enabled=true,clientsKeptByGateway=true")
    behavior = scaled.one("HorizontalPodAutoscaler")["spec"]["behavior"]
    assert behavior == {"scaleDown": {"stabilizationWindowSeconds": 600}}


def test_replicas(helm: Engine) -> None:
    one = helm.render()
    assert one.one("Deployment")["spec"]["replicas"] == 1
    scaled = helm.render("autoscaling.enabled=true,clientsKeptByGateway=true")
    assert "replicas" not in scaled.one("Deployment")["spec"]  # the autoscaler's
    assert scaled.one("HorizontalPodAutoscaler")["spec"]["minReplicas"] == 2
    for rendered in (one, scaled):
        assert rendered.one("Service")["spec"]["sessionAffinity"] == "ClientIP"


def test_nothing_gets_out(helm: Engine) -> None:
    assert helm.render("tee=none").one("NetworkPolicy")["spec"]["egress"] == []
    assert helm.render("tee=sgx").one("NetworkPolicy")["spec"]["egress"] == []
    (rule,) = helm.render("tee=cvm").one("NetworkPolicy")["spec"]["egress"]
    assert rule["to"] == [{"ipBlock": {"cidr": "169.254.169.254/32"}}]
    ports = [item["ports"][0]["port"] for item in helm.render().one("NetworkPolicy")["spec"]["ingress"]]
    assert ports == [8888, 8082]
    without = helm.render("metrics.enabled=false")
    assert [item["ports"][0]["port"] for item in without.one("NetworkPolicy")["spec"]["ingress"]] == [8888]
    assert [port["name"] for port in without.one("Service")["spec"]["ports"]] == ["http"]


def test_issuers_match_the_chart(helm: Engine) -> None:
    issuers = helm.ask("parse", text=(CHART / "lets-encrypt.yaml").read_text("utf-8"))
    assert custom_resource_errors(issuers) == [[], []]
    by_name = {item["metadata"]["name"]: item for item in issuers}
    assert by_name.keys() == {"letsencrypt-staging", "letsencrypt-production"}
    for mode, host in (("staging", "acme-staging-v02"), ("production", "acme-v02")):
        acme = by_name[f"letsencrypt-{mode}"]["spec"]["acme"]
        assert acme["server"] == f"https://{host}.api.letsencrypt.org/directory"
        rendered = helm.render(f"host=a.example,letsEncrypt.enabled=true,letsEncrypt.mode={mode}")
        certificate = rendered.one("Certificate")
        assert certificate["spec"]["issuerRef"]["name"] == f"letsencrypt-{mode}"
        solvers = [s for s in acme["solvers"] if _selects(s, certificate)]
        (parent,) = solvers[0]["http01"]["gatewayHTTPRoute"]["parentRefs"]
        assert parent["name"] == rendered.one("Gateway")["metadata"]["name"]
        nginx = helm.render(values=merged(WAYS["nginx"], TLS["lets-encrypt"]))
        (solver,) = [s for s in acme["solvers"] if _selects(s, nginx.one("Certificate"))]
        assert solver["http01"]["ingress"] == {"ingressClassName": "nginx"}


def _selects(solver: Object, certificate: Object) -> bool:
    return bool(solver["selector"]["matchLabels"].items() <= certificate["metadata"]["labels"].items())


def _is_custom(item: Object) -> bool:
    return bool(re.search(r"cert-manager|gateway\.networking|monitoring\.coreos", item["apiVersion"]))


def test_rendered_texts_have_no_blank_rests(helm: Engine) -> None:
    """Output that people read and diff."""
    rendered: Rendered = helm.render(values=merged(TEES["cvm"], TLS["lets-encrypt"]))
    assert not [line for text in rendered.texts for line in text.splitlines() if line != line.rstrip()]
