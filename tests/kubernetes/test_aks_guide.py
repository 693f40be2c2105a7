"""The guide docs/how-to/aks.md: its values render, and its commands exist, option by option.

Tests have no cluster, so ``az`` is held against the source of Azure's own command line, ``kubectl`` against
its help where it is installed, and ``helm`` by rendering what the command would.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from confonnx.server.auth import ApiKey, parse_credentials
from confonnx.server.settings_sources import load_settings
from tests.kubernetes.chart import CHART, IMAGE, REPOSITORY, TOOLS, ChartError, Engine, merged
from tests.support.commands import confonnx
from tests.support.documents import blocks

GUIDE = REPOSITORY / "docs" / "how-to" / "aks.md"

# az, group by group: the module of its source.
MODULES = {"group": "resource", "acr": "acr", "aks": "acs", "vm": "vm"}
AZ_GLOBAL = {"name", "resource-group", "location", "output", "query"}
KUBECTL = {
    "create namespace": set(),
    "create secret generic": {"from-file"},
    "label": set(),
    "rollout status": set(),
    "rollout restart": set(),
    "logs": {"selector", "previous"},
    "apply": {"recursive", "filename"},
    "wait": {"for", "timeout"},
    "get": {"output"},
    "describe": {"selector"},
    "delete": {"recursive", "filename"},
}
KUBECTL_GLOBAL = {"namespace"}
SHORT = {"-f": "filename", "-l": "selector", "-n": "namespace"}
HELM = {
    "upgrade": {"install", "namespace", "create-namespace", "values", "set", "version"},
    "template": {"namespace", "values", "set", "output-dir"},
    "uninstall": {"namespace"},
}
SCRIPTS = {"docker/server/build.sh", "docker/server/build_image.sh", "docker/server/run.sh"}


def _commands() -> list[list[str]]:
    """Every command of the guide, in words; those in ``$(…)`` and in the text's back quotes too."""
    text = GUIDE.read_text("utf-8")
    lines = [line for block in blocks(GUIDE) if block.language == "sh" for line in block.text.splitlines()]
    lines += re.findall(r"`((?:az|kubectl|helm) [^`]+)`", text)
    lines += [inner for line in lines for inner in re.findall(r"\$\((.+?)\)", line)]
    words = [shlex.split(line, comments=True) for line in lines]
    return [_without_assignments(command) for command in words if _without_assignments(command)]


def _without_assignments(words: list[str]) -> list[str]:
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return words


def _of(program: str) -> list[list[str]]:
    found = [command for command in _commands() if command[0] == program]
    assert found
    return found


def _options(words: list[str]) -> set[str]:
    long = {word[2:].split("=")[0] for word in words if word.startswith("--")}
    return long | {SHORT[word] for word in words if re.fullmatch(r"-[a-z]", word)}


@pytest.mark.parametrize("command", _of("az"), ids=" ".join)
def test_az_knows_it(helm: Engine, command: list[str]) -> None:
    if command[1] == "login":
        return
    *group, verb = itertools.takewhile(lambda word: not word.startswith("-"), command[1:])
    modules = "lib/python3*/site-packages/azure/cli/command_modules"
    (sources,) = TOOLS.parent.glob(f"{modules}/{MODULES[group[0]]}")
    commands = (sources / "commands.py").read_text("utf-8")
    name = re.escape(" ".join(group))
    sections = re.findall(rf"command_group\('{name}'.*?(?=\n    with self\.|\Z)", commands, re.DOTALL)
    assert any(f"'{verb}'" in section for section in sections), f"az {' '.join(group)} has no {verb}"
    options = (sources / "_params.py").read_text("utf-8") + (sources / "custom.py").read_text("utf-8")
    for option in _options(command) - AZ_GLOBAL:
        assert re.search(rf"\b{option.replace('-', '_')}\b|--{option}\b", options), option


@pytest.mark.parametrize("command", _of("kubectl"), ids=" ".join)
def test_kubectl_commands(command: list[str]) -> None:
    (verb,) = [verb for verb in KUBECTL if " ".join(command[1:]).startswith(verb)]
    assert _options(command) <= KUBECTL[verb] | KUBECTL_GLOBAL


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not in Debian's current packages")
@pytest.mark.parametrize("verb", KUBECTL)
def test_kubectl_has_these_options(verb: str) -> None:
    done = subprocess.run(["kubectl", *verb.split(), "--help"], capture_output=True, text=True, check=True)
    for option in KUBECTL[verb]:
        assert f"--{option}" in done.stdout


@pytest.mark.parametrize("command", _of("helm"), ids=" ".join)
def test_helm_commands(helm: Engine, command: list[str]) -> None:
    """Those on our chart are rendered with the values that they name."""
    assert _options(command) <= HELM[command[1]]
    if "samples/k8s" not in command:
        return
    values: dict[str, Any] = {}
    for option, value in itertools.pairwise(command):
        if option == "--values":
            values = merged(values, _values(helm)[value])
        elif option == "--set":
            values = merged(values, helm.ask("parse_set", expression=value.replace("$IMAGE", IMAGE)))
    rendered = helm.ask("render", chart=str(CHART), values=values, name="mymodel", namespace="mymodel")
    assert {item["kind"] for item in rendered["objects"]} >= {"Deployment", "Service", "HTTPRoute"}


def _values(helm: Engine) -> dict[str, dict[str, Any]]:
    """The guide's files of values, by the name in their first line."""
    found = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```$", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return {name: helm.ask("parse", text=text)[0] for name, text in found}


@pytest.mark.parametrize("base", ["mymodel.yaml", "mymodel-cvm.yaml"])
def test_every_file_of_values_fits(helm: Engine, base: str) -> None:
    """Laid over either TEE's values; what asks for passwords at the gateway needs one that can."""
    files = _values(helm)
    assert len(files) == 8
    for name, values in files.items():
        if name in ("mymodel.yaml", "mymodel-cvm.yaml"):
            assert helm.render(values=values).one("HTTPRoute")
            continue
        together = merged(files[base], values)
        if name != "mymodel-basic.yaml":
            assert helm.render(values=together).objects, name
            continue
        with pytest.raises(ChartError):
            helm.render(values=together)
        assert helm.render(values=merged(together, files["mymodel-envoy.yaml"])).one("SecurityPolicy")
        assert helm.render(values=merged(together, files["mymodel-nginx.yaml"])).one("Ingress")


def test_names_and_paths_are_those_of_the_chart(helm: Engine) -> None:
    text = GUIDE.read_text("utf-8")
    values = _values(helm)
    rendered = helm.render(values=merged(values["mymodel.yaml"], values["mymodel-tls.yaml"]))
    named = re.findall(r"(deployment|gateway|certificate)/([a-z-]+)", text)
    kinds = {"deployment": "Deployment", "gateway": "Gateway", "certificate": "Certificate"}
    assert {kind for kind, _ in named} == kinds.keys()
    for kind, name in named:
        assert rendered.one(kinds[kind])["metadata"]["name"] == name
    assert rendered.one("Deployment")["spec"]["selector"]["matchLabels"] == {"app": "model-server"}
    infrastructure = rendered.one("Gateway")["spec"]["infrastructure"]["annotations"]
    label = infrastructure["service.beta.kubernetes.io/azure-dns-label-name"]
    assert rendered.one("Certificate")["spec"]["dnsNames"] == [f"{label}.westeurope.cloudapp.azure.com"]
    for path in re.findall(r"(?:samples|docker)/[A-Za-z0-9_/.-]+[A-Za-z]", text):
        if path in SCRIPTS or path.startswith("samples/k8s/manifests"):
            continue  # the scripts have tests of their own; the manifests come with `helm template`
        assert (REPOSITORY / path).exists(), path


def test_the_gateway_class_is_envoys(helm: Engine) -> None:
    (item,) = helm.ask("parse", text=(CHART / "envoy-gateway-class.yaml").read_text("utf-8"))
    assert item["metadata"]["name"] == _values(helm)["mymodel-envoy.yaml"]["gateway"]["className"]
    assert item["spec"]["controllerName"] == "gateway.envoyproxy.io/gatewayclass-controller"


def test_what_runs_here_was_run(tmp_path: Path) -> None:
    """The commands of the guide that need neither a cluster nor a container engine, in their order."""
    (tmp_path / "model.onnx").write_bytes((REPOSITORY / "src/confonnx/cli/digits/digits.onnx").read_bytes())
    lines = [
        line
        for block in blocks(GUIDE)
        for line in block.text.splitlines()
        if re.match(r"python3 -m confonnx\.(?!main)|confonnx |mkdir |echo ", line)
    ]
    assert len(lines) == 6
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        check=True,
        timeout=120,
    )
    made = {str(item.relative_to(tmp_path)) for item in tmp_path.rglob("*") if item.is_file()}
    assert made == {
        *("model.onnx", "model.hash", "info.json", "input.json"),
        *("config/credentials", "config/server.toml"),
    }
    (credential,) = parse_credentials((tmp_path / "config/credentials").read_text(), source="credentials")
    assert isinstance(credential, ApiKey)
    settings, _ = load_settings({}, config=tmp_path / "config/server.toml")
    assert settings.auth_file == Path("/app/config/credentials")  # where build_image.sh puts CONFIG_DIR


def test_the_clients_options_exist() -> None:
    known = confonnx("predict", "--help").out
    (command,) = [words for words in _of("python3") if words[2] == "confonnx.main"]
    for option in [
        *_options(command[3:]),
        "ingress-user",
        "ingress-pass",
        "enclave-allow-debug",
        "allow-simulated",
    ]:
        assert f"--{option}" in known


def test_nothing_retired_is_recommended() -> None:
    """What the guide's ancestor of 2020 used, and what was retired since."""
    text = GUIDE.read_text("utf-8")
    for gone in (
        "Gen2VMPreview",
        "aks-custom-headers",
        "aks-preview",
        "v1beta1",
        "v1alpha2",
        "kata-cc",
        "VirtualMachineScaleSets",
        "DC4s_v2",
        "cert-manager/releases/download",
    ):
        assert gone not in text


def test_the_pages_paths_are_links() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", GUIDE.read_text("utf-8")):
        assert (GUIDE.parent / Path(target)).exists(), target
