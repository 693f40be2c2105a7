"""Helm's own engine and the Kubernetes schemas, behind standard input and output.

Runs in ``.venv-k8s`` (see ``chart.py``). One JSON object a line comes in, ``{"do": …}`` with arguments; one
goes out, ``{"result": …}`` or ``{"error": text}``.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import helm_python as helm  # type: ignore[import-not-found]
import kubernetes_validate  # type: ignore[import-not-found]
import yaml  # type: ignore[import-untyped]

KUBERNETES = "1.36"


def main() -> None:
    """Answer until standard input ends."""
    # The engine logs to descriptor 1; answers go to what descriptor 1 was.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = {"result": _DO[order.pop("do")](**order)}
        except helm.HelmError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def render(chart: str, values: dict[str, Any], name: str, namespace: str) -> dict[str, Any]:
    """The objects of the chart, and its notes, as ``helm template`` and ``helm install`` show them."""
    with helm.Chart.load(chart) as loaded:
        files = loaded.render(values=values, name=name, namespace=namespace)
    notes = "".join(text for path, text in files.items() if path.endswith("NOTES.txt"))
    texts = [text for path, text in sorted(files.items()) if not path.endswith("NOTES.txt")]
    return {"objects": [item for text in texts for item in parse(text)], "notes": notes, "texts": texts}


def render_in_cluster(
    chart: str, values: dict[str, Any], name: str, namespace: str, nodes: list[dict[str, str]]
) -> list[Any]:
    """The objects as ``helm install`` would make them in a cluster whose nodes offer these resources."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _api(nodes))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        cluster = {"name": "fake", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}
        context = {"name": "fake", "context": {"cluster": "fake"}}
        kubeconfig = {"clusters": [cluster], "contexts": [context], "current-context": "fake"}
        with (
            helm.Chart.load(chart) as loaded,
            helm.Config(kubeconfig_content=json.dumps(kubeconfig)) as config,
        ):
            files = config.render(loaded, values=values, name=name, namespace=namespace)
    finally:
        server.shutdown()
        server.server_close()
    return [item for path, text in sorted(files.items()) if path.endswith(".yaml") for item in parse(text)]


def _api(nodes: list[dict[str, str]]) -> type[BaseHTTPRequestHandler]:
    """So much of a Kubernetes API server that Helm can ask it for nodes."""
    items = [
        {"metadata": {"name": f"node-{number}"}, "status": {"allocatable": offered}}
        for number, offered in enumerate(nodes)
    ]
    resource = {
        "name": "nodes",
        "singularName": "node",
        "namespaced": False,
        "kind": "Node",
        "verbs": ["list"],
    }
    answers: dict[str, dict[str, Any]] = {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [resource]},
        "/api/v1/nodes": {"kind": "NodeList", "apiVersion": "v1", "items": items},
        "/version": {"major": "1", "minor": "36", "gitVersion": f"v{KUBERNETES}.0"},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            self.send_response(200 if path in answers else 404)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answers.get(path, {"kind": "Status", "code": 404})).encode())

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    return Handler


def lint(chart: str, values: dict[str, Any]) -> list[str]:
    """What ``helm lint --strict`` has to say, from warnings on."""
    report = helm.lint(chart, values, strict=True, namespace="default", kube_version=f"v{KUBERNETES}.0")
    found = [f"{m['path']}: {m['error']}" for m in report["messages"] if m["severity"] >= 2]
    return [*found, *report["errors"]]


def parse_set(expression: str) -> Any:
    """The values of one ``--set``."""
    return helm.parse_set_string(expression)


def parse(text: str) -> list[Any]:
    """The documents of a YAML file."""
    return [document for document in yaml.safe_load_all(text) if document is not None]


def schema_errors(item: dict[str, Any], version: str = KUBERNETES) -> list[str]:
    """What Kubernetes' own schema has against an object of a core kind; unknown fields too."""
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error.message)]
    return []


def kserve_fields(model: str) -> dict[str, str]:
    """The fields of KServe's generated class in this module: its names in YAML, and their types."""
    source = next(
        Path(str(file.locate()))
        for file in metadata.files("kserve") or []
        if str(file) == f"kserve/models/{model}.py"
    ).read_text("utf-8")
    tables = {
        target.id: ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in ("openapi_types", "attribute_map")
    }
    return {tables["attribute_map"][name]: kind for name, kind in tables["openapi_types"].items()}


_DO: dict[str, Callable[..., Any]] = {
    "render": render,
    "render_in_cluster": render_in_cluster,
    "lint": lint,
    "parse_set": parse_set,
    "parse": parse,
    "schema_errors": schema_errors,
    "kserve_fields": kserve_fields,
}


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
