"""docs/how-to/decide-what-to-trust.md: its policies load; its commands do what it says, on real evidence."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from confonnx.attestation.claims import Tee
from confonnx.attestation.formats.evidence import encode
from confonnx.attestation.policy import Policy, describe
from tests.evidence.manifest import one, path
from tests.evidence.test_evidence_azure import published
from tests.support import simulated_server as server
from tests.support.commands import confonnx

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/decide-what-to-trust.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILES = (
    "sgx/sgx-v3-phala.bin",
    "sgx/collateral-phala-sgx-quote.json",
    "tdx/tdx-v4-phala.bin",
    "tdx/collateral-phala-tdx-quote.json",
    "snp/milan-v2-trustee.bin",
    "snp/milan-v2-trustee.vcek.der",
    "snp/chain-milan.pem",
    "snp/crl-milan.pem",
    "nitro/nitro-2025-dstack-nsm.cbor",
)


def blocks(language: str) -> list[str]:
    return [text for found, text in _BLOCK.findall(PAGE.read_text("utf-8")) if found == language]


def policies() -> dict[str, str]:
    """The policies by the file name in their first line."""
    return {text.splitlines()[0].removeprefix("# "): text for text in blocks("toml")}


def commands() -> list[str]:
    return [line for text in blocks("sh") for line in text.splitlines()]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of the page's reader: its policies, and the evidence that it names."""
    for file in _FILES:
        shutil.copyfile(path(file), tmp_path / Path(file).name)
    for name, text in policies().items():
        (tmp_path / name).write_text(text, "utf-8")
    azure, vcek = published(one("az-snp-vtpm/trustee-evidence-v1.json"))
    assert vcek is not None
    (tmp_path / "azure-snp.json").write_bytes(encode(azure))
    (tmp_path / "azure-snp.vcek.der").write_bytes(vcek)
    (tmp_path / "simulated-bundle.json").write_bytes(server.bundle().encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONFONNX_URL", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", policies())
def test_each_policy_loads_and_reads_back(name: str) -> None:
    policy = Policy.from_toml(policies()[name])
    assert Policy.from_toml(policy.to_toml()) == policy
    assert len(describe(policy)) > 5


def test_every_tee_has_a_policy() -> None:
    shown = {server.tee for text in policies().values() for server in Policy.from_toml(text).accepted}
    assert shown == set(Tee) - {Tee.AZURE_TDX}  # described beside Azure on SNP


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("line", commands())
def test_each_command_ends_as_the_page_says(line: str) -> None:
    words, _, comment = line.partition("#")
    program, *arguments = shlex.split(words)
    assert program == "confonnx"
    expected = re.search(r"exits with (\d)", comment)
    run = confonnx(*arguments)
    assert run.status == (int(expected[1]) if expected else 0), run.out + run.err
    assert run.out
