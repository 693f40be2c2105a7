"""Gets the endorsements of one piece of evidence, from the vendor or from the cache, as the caller chose."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from os import PathLike
from time import monotonic
from typing import Final, assert_never

from confonnx.attestation.claims import Tee
from confonnx.attestation.endorse import amd_kds, intel_pcs
from confonnx.attestation.endorse.cache import Cache, Cached, default_directory
from confonnx.attestation.endorse.download import Downloader
from confonnx.attestation.endorse.exchange import UNUSABLE, Answer, Endorsements, Gathering, Request
from confonnx.attestation.endorse.options import EndorsementOptions, Mode
from confonnx.attestation.formats import azure_hcl, snp_report
from confonnx.attestation.formats.evidence import parse_azure
from confonnx.attestation.verify.dispatch import tee_of_evidence
from confonnx.errors import EndorsementError, OverloadedError, TransportError

# CRLs and TCB Info are valid for weeks and change on the day of a revocation or a security fix.
_RENEWED_AFTER: Final = timedelta(days=1)


class Endorser:
    """Gets endorsements. Mutable: it keeps connections. Many threads may use it."""

    def __init__(
        self,
        options: EndorsementOptions,
        *,
        ca_file: str | PathLike[str] | None = None,
        proxy: str | None = None,
        downloader: Downloader | None = None,
    ) -> None:
        """Asks nobody yet. ``downloader`` replaces the one that ``ca_file`` and ``proxy`` describe.

        Raises ConfigurationError for a cache directory, CA file or proxy that cannot be used.
        """
        self._options = options
        self._cache = _cache(options)
        self._downloader = downloader or Downloader(ca_file=ca_file, proxy=proxy)

    def collect(
        self,
        evidence_type: str,
        evidence: bytes,
        bundled: Endorsements,
        *,
        now: datetime,
        timeout: float | None,
    ) -> Endorsements:
        """The caller's own endorsements for ``evidence``, to give to ``appraise``; none of them verified.

        ``bundled`` are the server's, of which only what no vendor serves is used (a VLEK certificate). Empty
        in mode ``bundled``, and for a TEE whose evidence brings its own chain (Nitro, TPM, simulated).
        ``timeout`` is in seconds, for all of it.

        Raises EvidenceFormatError for evidence that cannot be read; EndorsementError for what the vendor does
        not have or what is not what was asked for; OverloadedError, TooLargeError and TransportError.
        """
        gathering = self._gathering(evidence_type, evidence, bundled)
        if gathering is None:
            return ()
        deadline = None if timeout is None else monotonic() + timeout
        return drive(gathering, lambda request: self._get(request, now, deadline))

    def close(self) -> None:
        """Closes the connections."""
        self._downloader.close()

    def _gathering(self, evidence_type: str, evidence: bytes, bundled: Endorsements) -> Gathering | None:
        if self._options.mode is Mode.BUNDLED:
            return None
        tee = tee_of_evidence(evidence_type)
        match tee:
            case Tee.SGX | Tee.TDX:
                return self._intel(evidence)
            case Tee.SEV_SNP:
                return self._amd(evidence, bundled)
            case Tee.AZURE_SNP:
                return self._amd(_report_of_azure(evidence), bundled)
            case Tee.AZURE_TDX:
                return self._intel(_quote_of_azure(evidence))
            case Tee.NITRO | Tee.TPM | Tee.SIMULATED:
                return None
            case _:
                assert_never(tee)

    def _intel(self, quote: bytes) -> Gathering:
        options = self._options
        return intel_pcs.gather(quote, base_url=options.intel_pcs_url, update=options.tcb_update)

    def _amd(self, report: bytes, bundled: Endorsements) -> Gathering:
        return amd_kds.gather(report, bundled, base_url=self._options.amd_kds_url)

    def _get(self, request: Request, now: datetime, deadline: float | None) -> Answer:
        kept = None
        if self._cache is not None and self._options.mode is Mode.CACHED:
            kept = self._cache.get(request)
            if kept is not None and _is_current(kept, request, now):
                return kept.answer
        try:
            answer = self._downloader.get(request, deadline=deadline)
        except (OverloadedError, TransportError) as error:
            return _instead(kept, request, now, error)
        valid_until = request.read_expiry(answer)
        if self._cache is not None:
            self._cache.put(request, answer, now=now, valid_until=valid_until)
        return answer


def drive(gathering: Gathering, get: Callable[[Request], Answer]) -> Endorsements:
    """Run ``gathering`` to its end; ``get`` answers its requests, and its EndorsementErrors are thrown in."""
    try:
        request = next(gathering)
        while True:
            try:
                answer = get(request)
            except EndorsementError as error:
                request = gathering.throw(error)
            else:
                request = gathering.send(answer)
    except StopIteration as stop:
        collected: Endorsements = stop.value
        return collected


def _cache(options: EndorsementOptions) -> Cache | None:
    if options.cache_directory is not None:
        return Cache(options.cache_directory)
    return Cache(default_directory()) if options.mode is Mode.CACHED else None


def _report_of_azure(evidence: bytes) -> bytes:
    return azure_hcl.parse(parse_azure(evidence).hcl_report).hardware[: snp_report.REPORT_SIZE]


def _quote_of_azure(evidence: bytes) -> bytes:
    quote = parse_azure(evidence).td_quote
    if quote is None:
        raise EndorsementError(UNUSABLE, "no TD quote came along, so Intel cannot be asked about its CPU")
    return quote


def _is_current(kept: Cached, request: Request, now: datetime) -> bool:
    # A clock that was ahead when the document came must not keep it for longer than a day.
    age = abs(now - kept.fetched_at)
    return now < kept.valid_until and (not request.renewed or age < _RENEWED_AFTER)


def _instead(
    kept: Cached | None, request: Request, now: datetime, error: OverloadedError | TransportError
) -> Answer:
    """What is in the cache, where it is only due for renewal. Raises ``error`` where there is nothing, and an
    EndorsementError (``endorse.expired``) where it expired."""
    if kept is None:
        raise error
    if now < kept.valid_until:
        return kept.answer
    raise EndorsementError(
        "endorse.expired",
        f"{request.what} in the cache expired at {kept.valid_until.isoformat()}, and a current one cannot "
        f"be had: {error}",
    ) from error
