"""Profiles of the chart: each TEE, each way in, each kind of certificate, and KServe's pod beside them."""

from __future__ import annotations

import itertools
from typing import Any, cast

from tests.kubernetes.chart import CHART, IMAGE, Engine, Object, merged

TEES: dict[str, dict[str, Any]] = {
    "sgx": {"tee": "sgx"},
    "sgx-legacy": {
        "tee": "sgx",
        "sgx": {"legacyResourceName": True, "explicitDevices": True, "aesmd": "node"},
        "auth": {"where": "image"},
        "supplementalGroups": [1001],
    },
    "cvm": {"tee": "cvm", "auth": {"where": "server"}, "settings": {"deployment": "production"}},
    "cvm-tdx": {"tee": "cvm", "cvm": {"tee": "tdx"}, "settings": {"request_timeout": "30s"}},
    "cvm-plugin": {
        "tee": "cvm",
        "cvm": {"deviceAccess": "device-plugin", "deviceResource": "smarter-devices/tpmrm0"},
        "model": {"source": "volume", "path": "digits/model.onnx", "name": "digits", "claim": "models"},
    },
    "none": {
        "tee": "none",
        "model": {
            "source": "initContainer",
            "repository": ".",
            "initContainer": {"image": IMAGE, "command": ["fetch"], "envFromSecrets": ["store"]},
        },
        "networkPolicy": {"egress": [{"ports": [{"protocol": "TCP", "port": 443}]}]},
        "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    },
}
WAYS: dict[str, dict[str, Any]] = {
    "gateway": {},
    "envoy-gateway": {
        "gateway": {"className": "eg", "envoyGateway": True, "serviceAnnotations": {"a.example/b": "c"}},
        "autoscaling": {"enabled": True},
    },
    "nginx": {
        "gateway": {"enabled": False},
        "ingress": {"enabled": True, "className": "nginx"},
        "replicas": 3,
    },
    "application-gateway": {
        "gateway": {"enabled": False},
        "ingress": {
            "enabled": True,
            "className": "azure-application-gateway",
            "kind": "application-gateway",
            "annotations": {"a.example/b": "c"},
        },
        "updateStrategy": "Recreate",
    },
}
TLS: dict[str, dict[str, Any]] = {
    "http": {},
    "lets-encrypt": {"host": "model.example.org", "letsEncrypt": {"enabled": True, "mode": "production"}},
    "own-certificate": {"host": "model.example.org", "tlsSecret": "mine"},
}
CASES = {
    f"{tee}-{way}-{tls}": merged(merged(TEES[tee], WAYS[way]), TLS[tls])
    for tee, way, tls in itertools.product(TEES, WAYS, TLS)
}
PRIVILEGED = ("cvm", "cvm-tdx")


def load_kserve(helm: Engine, name: str) -> Object:
    """The one object in this file of samples/k8s/kserve."""
    (item,) = helm.ask("parse", text=(CHART / "kserve" / name).read_text("utf-8"))
    return cast(Object, item)


def kserve_pod(helm: Engine) -> Object:
    """The pod that KServe makes of the two files: it takes these parts over as they are."""
    runtime, service = (
        load_kserve(helm, "cluster-serving-runtime.yaml"),
        load_kserve(helm, "inference-service.yaml"),
    )
    predictor = service["spec"]["predictor"]
    spec = {key: runtime["spec"][key] for key in ("containers", "volumes")}
    spec |= {key: predictor[key] for key in ("automountServiceAccountToken", "securityContext")}
    metadata = {"name": "predictor", "namespace": "mymodel"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def restricted_violations(pod: Object) -> set[str]:
    """What keeps a pod from the level `restricted` (Kubernetes documentation, Pod Security Standards)."""
    found = {key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)}
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in pod["volumes"]:
        (kind,) = volume.keys() - {"name"}
        if kind not in allowed:
            found.add(f"volume {volume['name']} is a {kind}")
    of_pod = pod["securityContext"]
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        context = {**of_pod, **container["securityContext"]}
        if context.get("privileged"):
            found.add("privileged")
        if context.get("allowPrivilegeEscalation") is not False:
            found.add("allowPrivilegeEscalation")
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
            found.add("capabilities")
        if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
            found.add("runs as root")
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            found.add("seccompProfile")
    return found
