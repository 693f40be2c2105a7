"""Where endorsements come from: the caller's choice, parsed once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from os import PathLike
from typing import Final

from confonnx.errors import ConfigurationError

AMD_KDS: Final = "https://kdsintf.amd.com"
INTEL_PCS: Final = "https://api.trustedservices.intel.com"

_BASE_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(?:/[A-Za-z0-9._~-]+)*")


class Mode(StrEnum):
    """Who is asked for endorsements."""

    BUNDLED = "bundled"
    """Nobody: the server sends them along. No network beside the server itself."""
    FETCH = "fetch"
    """The CPU's vendor, each time; what comes is kept if there is a cache directory."""
    CACHED = "cached"
    """The cache; and the vendor for what the cache lacks, what expired, and CRLs and TCB Info after a day."""


class TcbUpdate(StrEnum):
    """Which of Intel's collateral to ask for after a security fix (PCS API v4, ``update``)."""

    STANDARD = "standard"
    """The fix counts once platforms had some months to apply it."""
    EARLY = "early"
    """The fix counts from the day on which it is published."""


@dataclass(frozen=True, slots=True)
class EndorsementOptions:
    """Where endorsements come from.

    ``cache_directory``: where to keep what was fetched; in mode ``cached`` it is
    ``~/.cache/confonnx/endorsements`` unless given. ``amd_kds_url`` and ``intel_pcs_url`` are base addresses
    without the path of the API: another than Intel's is asked as a PCCS (Provisioning Certificate Caching
    Service), for instance ``https://localhost:8081``. ``http://`` is fine: every document is signed.

    Raises :class:`ConfigurationError`.
    """

    mode: Mode = Mode.BUNDLED
    cache_directory: str | PathLike[str] | None = None
    amd_kds_url: str = AMD_KDS
    intel_pcs_url: str = INTEL_PCS
    tcb_update: TcbUpdate = TcbUpdate.STANDARD

    def __post_init__(self) -> None:
        for option, url in (("amd_kds_url", self.amd_kds_url), ("intel_pcs_url", self.intel_pcs_url)):
            if not _BASE_URL.fullmatch(url):
                raise ConfigurationError(
                    f"{option} must be http:// or https://, a host and maybe a path, without a last slash, "
                    f"a query or credentials; found {url!r}"
                )


def parse_mode(text: str) -> Mode:
    """The mode of that name. Raises :class:`ConfigurationError`."""
    try:
        return Mode(text)
    except ValueError:
        raise ConfigurationError(f"endorsements must be one of {', '.join(Mode)}; found {text!r}") from None
