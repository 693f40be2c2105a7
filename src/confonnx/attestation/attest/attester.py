"""What every Attester does, and what it returns."""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias

from confonnx.attestation.claims import Tee

REPORT_DATA_SIZE: Final = 64

#: Pairs of media type and bytes, as in a bundle.
Endorsements: TypeAlias = tuple[tuple[str, bytes], ...]


class Attester(Protocol):
    """Collects evidence. ``tee`` and ``evidence_type`` (a media type) say of which kind. Threads may share
    it."""

    @property
    def tee(self) -> Tee: ...

    @property
    def evidence_type(self) -> str: ...

    def collect(self, report_data: bytes) -> tuple[bytes, Endorsements]:
        """Evidence that binds ``report_data`` (64 bytes), and the endorsements that came with it.

        Raises ``TeeError`` when the device fails.
        """
        ...
