"""The server's Attester, as its settings ask for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from confonnx.attestation.attest.attester import Attester, Endorsements
from confonnx.attestation.attest.bound import BoundAttester
from confonnx.attestation.attest.detect import Machine, detect
from confonnx.attestation.attest.endorsing import EndorsingAttester
from confonnx.attestation.attest.simulated import SimulatedAttester
from confonnx.attestation.attest.tpm import AK_HANDLE, TpmOptions
from confonnx.attestation.attest.tpm_transport import parse_address
from confonnx.attestation.claims import Tee
from confonnx.attestation.endorse.cache import default_directory
from confonnx.attestation.endorse.endorser import Endorser
from confonnx.attestation.endorse.options import EndorsementOptions, Mode
from confonnx.attestation.policy import signers
from confonnx.errors import ConfigurationError
from confonnx.server.settings import Settings


@dataclass(frozen=True, slots=True)
class TurnsAttester:
    """The ``inner`` Attester, whose device is used by one process at a time: that which is in a context that
    ``exclusive`` gives. Not every device can tell two of them apart. An ``Attester``.
    """

    inner: Attester
    exclusive: Callable[[], AbstractContextManager[None]]

    @property
    def tee(self) -> Tee:
        """That of ``inner``."""
        return self.inner.tee

    @property
    def evidence_type(self) -> str:
        """That of ``inner``."""
        return self.inner.evidence_type

    def collect(self, report_data: bytes) -> tuple[bytes, Endorsements]:
        """As of ``inner``, in turn. Raises ``TeeError``."""
        with self.exclusive():
            return self.inner.collect(report_data)


def open_attester(settings: Settings, measurement: bytes, *, now: Callable[[], datetime]) -> BoundAttester:
    """The Attester of the TEE that is asked for or found, else of ``measurement`` (32 bytes), simulated.

    Raises ConfigurationError for a file or address that cannot be used, and TeeError.
    """
    attester = detect(
        forced=settings.tee,
        require_tee=settings.require_tee,
        simulated=_simulated(settings, measurement),
        machine=Machine(tpm=_tpm(settings)),
    )
    return BoundAttester(_endorsed(attester, settings, now) if settings.fetch_endorsements else attester)


def _simulated(settings: Settings, measurement: bytes) -> SimulatedAttester:
    signer = None
    path = settings.simulated_signing_key_file
    if path is not None:
        try:
            signer = signers(path.read_bytes())[Tee.SIMULATED]
        except OSError as error:
            raise ConfigurationError(
                f"--simulated-signing-key-file {path} cannot be read: {error.strerror}"
            ) from error
    return SimulatedAttester(measurement, signer=signer, debug=settings.simulated_debug)


def _tpm(settings: Settings) -> TpmOptions:
    connect = parse_address(settings.tpm)
    handle = AK_HANDLE if settings.tpm_ak_handle is None else settings.tpm_ak_handle
    path = settings.tpm_ak_certificate
    if path is None:
        return TpmOptions(connect, handle)
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"--tpm-ak-certificate {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(
            f"--tpm-ak-certificate {path} holds no certificates in PEM: {error}"
        ) from error
    return TpmOptions(connect, handle, tuple(certificates))


def _endorsed(attester: Attester, settings: Settings, now: Callable[[], datetime]) -> EndorsingAttester:
    options = EndorsementOptions(
        mode=Mode.CACHED,
        cache_directory=settings.endorsement_cache or default_directory(),
        amd_kds_url=settings.amd_kds_url,
        intel_pcs_url=settings.intel_pcs_url,
    )
    return EndorsingAttester(attester, Endorser(options, ca_file=settings.endorsement_ca_file), now)
