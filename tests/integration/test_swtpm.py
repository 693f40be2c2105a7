"""A real TPM protocol, end to end: swtpm with the EK certificate of its vendor; the enrolment of the server's
attestation key exactly as docs/how-to/run-in-a-tee.md has it; a server with ``--tee tpm``; clients that
verify AK certificate, quote, PCRs and binding, and predict, or refuse."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509

from confonnx import Client
from confonnx.attestation.claims import Tee, TpmClaims
from confonnx.attestation.policy import ANY, ModelDigests, OneOf, Policy, reference_values
from confonnx.attestation.verify.x509 import spki_digest
from confonnx.errors import EndorsementError, PolicyError
from tests.support.documents import blocks
from tests.support.models import add_model
from tests.support.running import RunningServer, running_server
from tests.support.swtpm import SoftwareTpm, running_swtpm

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/run-in-a-tee.md"
RELEASE = hashlib.sha256(b"our release").digest()


@dataclass(frozen=True)
class Site:
    """A machine with a TPM, and the files of its enrolment."""

    tpm: SoftwareTpm
    directory: Path
    model: Path

    @property
    def root(self) -> x509.Certificate:
        """Of the CA that made the EK's certificate, and here also certifies attestation keys."""
        return _certificate(self.tpm.ca / "swtpm-localca-rootca-cert.pem")

    def options(self) -> list[str]:
        """Of a server of this machine."""
        chain = str(self.directory / "ak-chain.pem")
        return [*self._model(), "--tee", "tpm", "--tpm", self.tpm.address, "--tpm-ak-certificate", chain]

    def first_start(self) -> subprocess.CompletedProcess[str]:
        """A server without a certificate for its key."""
        words = ["confonnx.cli.app", "serve", *self._model(), "--tee", "tpm", "--tpm", self.tpm.address]
        return subprocess.run(
            [sys.executable, "-m", *words], capture_output=True, text=True, timeout=60, check=False
        )

    def extend(self, pcr: int, digest: bytes) -> None:
        self.tpm.tool("tpm2_pcrextend", f"{pcr}:sha256={digest.hex()}")

    def policy(self, **changes: bytes) -> Policy:
        """Accepts what this machine shows now, and the model."""
        values = {"pcr14": self._pcr(14), "pcr4": self._pcr(4), "root": spki_digest(self.root)} | changes
        reference = reference_values(Tee.TPM, {key: OneOf((value,)) for key, value in values.items()})
        digest = hashlib.sha256(self.model.read_bytes()).hexdigest()
        return Policy((reference,), ModelDigests((digest,)), ANY)

    def _pcr(self, index: int) -> bytes:
        self.tpm.tool("tpm2_pcrread", f"sha256:{index}", "-o", "pcr", directory=self.directory)
        return (self.directory / "pcr").read_bytes()

    def _model(self) -> list[str]:
        return ["--model-path", str(self.model)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A machine whose TPM was enrolled as the documentation says."""
    directory = tmp_path_factory.mktemp("enrolment")
    with running_swtpm(tmp_path_factory.mktemp("swtpm"), ek_certificate=True) as tpm:
        site = Site(tpm, directory, add_model(directory / "model.onnx"))
        first = site.first_start()
        assert first.returncode != 0
        assert "no certificate is for the attestation key at 0x8100c0f0" in first.stderr
        assert "docs/how-to/run-in-a-tee.md" in first.stderr
        _enrol(site)
        site.extend(14, RELEASE)
        yield site


@pytest.fixture
def server(site: Site) -> Iterator[RunningServer]:
    with running_server(*site.options()) as running:
        yield running


def test_a_client_verifies_the_tpm_and_predicts(site: Site, server: RunningServer) -> None:
    assert server.ready["tee"] == "tpm"
    with Client(server.url, policy=site.policy()) as client:
        answer = client.predict({"a": [1.0, 2.0], "b": [3.0, 4.0]})["sum"]
        keys = client.verify()
    np.testing.assert_array_equal(answer, np.array([4.0, 6.0], np.float32))
    details = keys.claims.details
    assert isinstance(details, TpmClaims)
    assert details.subject == "CN=server 1"
    assert details.root == spki_digest(site.root)
    assert keys.claims.measurement.hex() == server.measurement
    pcrs = {pcr.index: pcr.value for pcr in details.pcrs}
    assert pcrs[14] == hashlib.sha256(bytes(32) + RELEASE).digest()


def test_a_pcr_changed_after_the_policy_was_made_is_refused(site: Site, server: RunningServer) -> None:
    accepted = site.policy()
    with Client(server.url, policy=accepted) as client:
        client.verify()
    site.extend(4, hashlib.sha256(b"another boot loader").digest())
    with Client(server.url, policy=accepted) as client, pytest.raises(PolicyError, match=r"PCR4 .*expected"):
        client.predict({"a": [1.0], "b": [1.0]})
    with Client(server.url, policy=site.policy()) as client:
        assert client.predict({"a": [1.0], "b": [1.0]})["sum"].tolist() == [2.0]  # type: ignore[union-attr]


def test_another_release_is_refused(site: Site, server: RunningServer) -> None:
    other = site.policy(pcr14=hashlib.sha256(bytes(32) + bytes(32)).digest())
    with Client(server.url, policy=other) as client, pytest.raises(PolicyError, match=r"PCR14"):
        client.verify()


def test_a_ca_that_the_policy_does_not_name_is_refused(site: Site, server: RunningServer) -> None:
    other = site.policy(root=b"\x42" * 32)
    with Client(server.url, policy=other) as client, pytest.raises(EndorsementError) as caught:
        client.verify()
    assert caught.value.check == "tpm.root"


def test_the_simple_options_never_accept_a_tpm(site: Site, server: RunningServer) -> None:
    model = hashlib.sha256(site.model.read_bytes()).hexdigest()
    with (
        Client(server.url, enclave_hash=server.measurement, enclave_model_hash=model) as client,
        pytest.raises(EndorsementError) as caught,
    ):
        client.verify()
    assert caught.value.check == "tpm.root"  # they name no CA of TPMs


def test_the_key_is_kept(site: Site) -> None:
    """The certificate holds for the next start too."""
    keys = set()
    for _ in range(2):
        with running_server(*site.options()) as server, Client(server.url, policy=site.policy()) as client:
            details = client.verify().claims.details
            assert isinstance(details, TpmClaims)
            keys.add(details.attestation_key)
    assert len(keys) == 1


def _enrol(site: Site) -> None:
    """The blocks of the page, one after the other; in one directory, so nothing needs to be carried."""
    ca = site.tpm.ca
    issuer, root = (ca / "issuercert.pem").read_bytes(), (ca / "swtpm-localca-rootca-cert.pem").read_bytes()
    (site.directory / "vendor.pem").write_bytes(issuer + root)
    (site.directory / "ca.pem").write_bytes(issuer + root)
    (site.directory / "ca.key").write_bytes((ca / "signkey.pem").read_bytes())
    steps = [block.text for block in blocks(PAGE)]
    assert len(steps) == 4
    for step in steps:
        site.tpm.tool("bash", "-euo", "pipefail", "-c", step, directory=site.directory)
        site.tpm.tool("tpm2_flushcontext", "-t")  # what a resource manager does, which swtpm has none of


def _certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())
