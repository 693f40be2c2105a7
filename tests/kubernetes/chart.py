"""The chart in the hands of the real Helm engine, and what its objects are checked against."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "samples" / "k8s"
TOOLS = REPOSITORY / ".venv-k8s" / "bin"
NODE = Path(__file__).parent / "node"

DIGEST = "sha256:" + "5a" * 32
IMAGE = f"registry.example/model-server@{DIGEST}"
NAMESPACE = "mymodel"

Object = dict[str, Any]
"""A Kubernetes object, as parsed from YAML."""


class ChartError(Exception):
    """Helm refused: the text is what its user reads."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What the chart gives for some values."""

    objects: tuple[Object, ...]
    notes: str
    texts: tuple[str, ...]

    def all(self, kind: str) -> list[Object]:
        """Every object of this kind."""
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str) -> Object:
        """The one object of this kind."""
        found = self.all(kind)
        assert len(found) == 1, f"expected one {kind}, found {len(found)}"
        return found[0]

    @property
    def pod(self) -> Object:
        """The pod's spec."""
        return cast(Object, self.one("Deployment")["spec"]["template"]["spec"])

    @property
    def container(self) -> Object:
        """The server's container."""
        (container,) = self.pod["containers"]
        return cast(Object, container)

    @property
    def environment(self) -> dict[str, str]:
        """The server's variables."""
        return {item["name"]: item["value"] for item in self.container.get("env", [])}


class Engine:
    """``engine.py`` in a process of its own. Mutable: it owns that process."""

    def __init__(self) -> None:
        """Starts it; see :func:`need_tools`."""
        command = [TOOLS / "python", Path(__file__).with_name("engine.py")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """One order, one result. Raises ChartError with Helm's message."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise ChartError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def values(self, *expressions: str) -> dict[str, Any]:
        """Values of ``--set`` expressions, beside an image and, unless given, ``auth.where=none``."""
        values: dict[str, Any] = {"image": IMAGE, "auth": {"where": "none"}}
        for expression in expressions:
            values = merged(values, self.ask("parse_set", expression=expression))
        return values

    def render(self, *expressions: str, values: Mapping[str, Any] | None = None) -> Rendered:
        """The chart with these ``--set`` expressions over ``values``. Raises ChartError."""
        chosen = merged(self.values(), values) if values is not None else self.values()
        for expression in expressions:
            chosen = merged(chosen, self.ask("parse_set", expression=expression))
        result = self.ask("render", chart=str(CHART), values=chosen, name="model", namespace=NAMESPACE)
        return Rendered(tuple(result["objects"]), result["notes"], tuple(result["texts"]))


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``under``, map by map, as Helm does."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(cast(Mapping[str, Any], below), value) if both else value
    return result


def need_tools() -> None:
    """Skip without the tools of ``.venv-k8s`` and Node, with a reason; fail in CI."""
    missing = [str(path) for path in (TOOLS / "python", TOOLS / "checkov") if not path.exists()]
    missing += [] if shutil.which("node") else ["node"]
    missing += (
        []
        if (NODE / "node_modules" / "@kubernetes-models").is_dir()
        else ["tests/kubernetes/node's packages"]
    )
    if missing:
        message = f"missing: {', '.join(missing)} (`make test` installs them where it can)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def custom_resource_errors(objects: Sequence[Object]) -> list[list[str]]:
    """For each object of a custom kind, what its schema has against it; unknown fields too."""
    done = subprocess.run(
        ["node", str(NODE / "validate.mjs")],
        input=json.dumps(list(objects)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return cast(list[list[str]], json.loads(done.stdout))
