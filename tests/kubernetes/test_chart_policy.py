"""A policy linter (checkov) over every profile: no finding without a reason in policy-findings.toml."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.kubernetes.chart import TOOLS, Engine, merged
from tests.kubernetes.profiles import TEES, TLS, WAYS, kserve_pod

REASONS = Path(__file__).with_name("policy-findings.toml")

# TEE by TEE, each with another way in, so that every template is looked at.
PROFILES = {
    tee: merged(merged(TEES[tee], way), TLS["lets-encrypt"])
    for tee, way in zip(TEES, (*WAYS.values(), WAYS["gateway"], WAYS["nginx"]), strict=True)
}
PROFILES["tag"] = {"image": "registry.example/model-server:latest", "dangerousImageByTag": True}


@pytest.fixture(scope="module", name="findings")
def _findings(helm: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Check by check the profiles in which it failed."""
    directory = tmp_path_factory.mktemp("manifests")
    for profile, values in PROFILES.items():
        (directory / profile).mkdir()
        for number, text in enumerate(helm.render(values=values).texts):
            (directory / profile / f"{number:02}.yaml").write_text(text, "utf-8")
    (directory / "kserve").mkdir()
    (directory / "kserve" / "pod.json").write_text(json.dumps(kserve_pod(helm)), "utf-8")
    command = [str(TOOLS / "checkov"), "--directory", str(directory), "--framework", "kubernetes"]
    done = subprocess.run(
        [*command, "--skip-download", "--compact", "--quiet", "--output", "json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,  # 1 is: there are findings
    )
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 80 * len(PROFILES)
    found: dict[str, set[str]] = {}
    for item in report["results"]["failed_checks"]:
        found.setdefault(item["check_id"], set()).add(item["file_path"].split("/")[1])
    return found


def test_every_finding_has_its_reason(findings: dict[str, set[str]]) -> None:
    reasons = tomllib.loads(REASONS.read_text("utf-8"))
    assert findings == {check: set(entry["profiles"]) for check, entry in reasons.items()}
    assert all(len(entry["reason"]) > 40 for entry in reasons.values())
