"""The options that say where endorsements come from, for ``verify``.

``--endorsements`` takes files, repeatedly, or one of the words ``bundled``, ``fetch`` and ``cached``. A file
with such a name is given as ``./fetch``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from confonnx.attestation.bundle import BundleLimits
from confonnx.attestation.endorse.endorser import Endorser
from confonnx.attestation.endorse.exchange import Endorsements
from confonnx.attestation.endorse.options import EndorsementOptions, Mode, TcbUpdate
from confonnx.attestation.verify.appraise import Outcome, Step
from confonnx.cli.recognise import as_endorsement
from confonnx.errors import ConfigurationError, EndorsementError, EvidenceFormatError
from confonnx.models.documents import read_bytes

ENDORSEMENTS: Final = "Endorsements"
STEP_ID: Final = "endorsements.fetch"

Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--endorsements",
        metavar="FILE|bundled|fetch|cached",
        help="Certificates, CRLs, collateral or event logs from a file (give it once for each), or `fetch` "
        "from the CPU's vendor, or `cached` ones on disk. Without it what came with the evidence.",
        rich_help_panel=ENDORSEMENTS,
    ),
]
ModeName = Annotated[
    Mode,
    typer.Option(
        "--endorsements",
        help="Certificates and revocation lists of the server's CPU: `bundled` with its answer, `fetch` from "
        "the CPU's vendor, or `cached` ones on disk.",
        rich_help_panel=ENDORSEMENTS,
    ),
]
CacheDirectory = Annotated[
    Path | None,
    typer.Option(
        help="Keep what was fetched here; ~/.cache/confonnx/endorsements with `cached`.",
        rich_help_panel=ENDORSEMENTS,
    ),
]
AmdKdsUrl = Annotated[
    str, typer.Option(help="AMD's KDS, or what stands in for it.", rich_help_panel=ENDORSEMENTS)
]
IntelPcsUrl = Annotated[str, typer.Option(help="Intel's PCS, or a PCCS.", rich_help_panel=ENDORSEMENTS)]
Update = Annotated[
    TcbUpdate,
    typer.Option(
        help="Whether Intel's fixes count at once or after some months.", rich_help_panel=ENDORSEMENTS
    ),
]


@dataclass(frozen=True, slots=True)
class Choice:
    """Where endorsements come from: ``files`` that were read, or whom ``options`` say to ask."""

    files: Endorsements
    options: EndorsementOptions
    ca_file: Path | None
    timeout: float

    def collect(
        self, steps: list[Step], evidence_type: str, evidence: bytes, bundled: Endorsements, now: datetime
    ) -> Endorsements:
        """One's own endorsements. What became of getting them, if anybody was asked, goes to ``steps``.

        Raises :class:`EndorsementError` where the vendor has none, and what else ``Endorser.collect`` raises.
        """
        if self.options.mode is Mode.BUNDLED:
            return self.files
        endorser = Endorser(self.options, ca_file=self.ca_file)
        try:
            found = endorser.collect(evidence_type, evidence, bundled, now=now, timeout=self.timeout)
        except EvidenceFormatError:
            # The appraisal, which comes next, says better what is wrong with it.
            steps.append(_step(Outcome.SKIP, "the evidence cannot be read"))
            return ()
        except EndorsementError as error:
            steps.append(_step(Outcome.FAIL, str(error)))
            raise
        finally:
            endorser.close()
        none = "no vendor serves endorsements for this kind of evidence"
        steps.append(_step(Outcome.PASS, "") if found else _step(Outcome.SKIP, none))
        return found


def choice(
    sources: Sequence[str] | None,
    *,
    cache_directory: Path | None,
    amd_kds_url: str,
    intel_pcs_url: str,
    tcb_update: TcbUpdate,
    ca_file: Path | None,
    timeout: float,
) -> Choice:
    """What the options mean. Raises :class:`ConfigurationError`."""
    given = tuple(sources or ())
    modes = [source for source in given if source in tuple(Mode)]
    paths = [Path(source) for source in given if source not in tuple(Mode)]
    mode = Mode(modes[0]) if modes else Mode.BUNDLED
    if len(set(modes)) > 1 or (paths and mode is not Mode.BUNDLED):
        raise ConfigurationError(
            f"--endorsements takes files, or one of {', '.join(Mode)}; found {' and '.join(given)}"
        )
    options = EndorsementOptions(mode, cache_directory, amd_kds_url, intel_pcs_url, tcb_update)
    return Choice(tuple(_read(path) for path in paths), options, ca_file, timeout)


def _step(outcome: Outcome, reason: str) -> Step:
    remedy = "give the endorsements as files, or leave them to the server (bundled)"
    return Step(
        STEP_ID,
        "current endorsements are at hand",
        outcome,
        reason,
        remedy if outcome is Outcome.FAIL else "",
    )


def _read(path: Path) -> tuple[str, bytes]:
    data = read_bytes(path)
    limit = BundleLimits().max_endorsement_bytes
    if len(data) > limit:
        raise ConfigurationError(f"--endorsements {path}: {len(data)} bytes, at most {limit} are allowed")
    return as_endorsement(data, f"--endorsements {path}")
