"""The Attester that the settings ask for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from confonnx.attestation.attest.bound import BoundAttester
from confonnx.attestation.attest.endorsing import EndorsingAttester
from confonnx.attestation.attest.simulated import SimulatedAttester
from confonnx.attestation.attest.tpm import TpmAttester
from confonnx.attestation.attest.tpm_commands import Tpm
from confonnx.attestation.attest.tpm_transport import parse_address
from confonnx.attestation.claims import Tee
from confonnx.errors import ConfigurationError, TeeError
from confonnx.server.settings_sources import load_settings
from confonnx.server.tee import open_attester
from tests.support.fake_kernel import no_wait
from tests.support.swtpm import SoftwareTpm, running_swtpm
from tests.support.tpm_keys import certify

MEASUREMENT = b"\7" * 32


def attester(**options: object) -> BoundAttester:
    settings, _ = load_settings(options)
    return open_attester(settings, MEASUREMENT, now=lambda: datetime.now(UTC))


@pytest.fixture
def software(tmp_path: Path) -> Iterator[SoftwareTpm]:
    (tmp_path / "swtpm").mkdir()
    with running_swtpm(tmp_path / "swtpm") as tpm:
        yield tpm


def test_without_a_tee() -> None:
    simulated = attester(tee="simulated")
    assert simulated.inner == SimulatedAttester(MEASUREMENT)
    assert simulated.measure() == MEASUREMENT


@pytest.mark.parametrize("tee", [tee for tee in Tee if tee is not Tee.SIMULATED])
def test_a_tee_that_is_not_here(tee: Tee, tmp_path: Path) -> None:
    with pytest.raises(TeeError, match=r"looked for|/no-tpm.*ENOENT"):
        attester(tee=tee.value, tpm=f"{tmp_path}/no-tpm")


def test_endorsements_are_fetched_only_when_asked_for(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    fetching = attester(tee="simulated", fetch_endorsements=True, endorsement_cache=cache).inner
    assert isinstance(fetching, EndorsingAttester)
    fetching.endorser.close()
    assert not isinstance(attester(tee="simulated", endorsement_cache=cache).inner, EndorsingAttester)


def test_the_options_of_the_tpm(software: SoftwareTpm, tmp_path: Path) -> None:
    handle = 0x8100BEEF
    with parse_address(software.address)() as transport:
        device = Tpm(transport, wait=no_wait)
        device.make_attestation_key(handle)
        key = device.read_public(handle)
    assert key is not None
    (tmp_path / "ak.pem").write_bytes(certify(key.public_key))
    made = attester(
        tee="tpm",
        tpm=software.address,
        tpm_ak_handle="0x8100beef",
        tpm_ak_certificate=str(tmp_path / "ak.pem"),
    )
    assert isinstance(made.inner, TpmAttester)
    assert len(made.measure()) == 32


@pytest.mark.parametrize("handle", ["", "x", "-1", "5", "0x80000000", "0x82000000", "0x8100000000", 7, 1.5])
def test_handles_that_are_none(handle: object) -> None:
    with pytest.raises(
        ConfigurationError, match="--tpm-ak-handle: expected a persistent handle such as 0x8100c0f0"
    ):
        load_settings({"tpm_ak_handle": handle})


def test_files_and_addresses_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--tpm-ak-certificate .* cannot be read"):
        attester(tpm_ak_certificate=str(tmp_path / "missing.pem"))
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"--tpm-ak-certificate .* holds no certificates"):
        attester(tpm_ak_certificate=str(tmp_path / "text.pem"))
    with pytest.raises(ConfigurationError, match="address of a TPM"):
        attester(tpm="tpm0")
    for wrong in ({"intel_pcs_url": "pccs"}, {"amd_kds_url": "ftp://x"}, {"endorsement_ca_file": "/missing"}):
        with pytest.raises(ConfigurationError):
            attester(tee="simulated", fetch_endorsements=True, endorsement_cache=str(tmp_path / "c"), **wrong)
