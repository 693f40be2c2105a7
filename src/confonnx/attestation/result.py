"""The Attestation Result (RFC 9334 §8.4): keys that an appraisal vouches for, and the only way to seal to
one.

An ``AttestedKeys`` exists only because ``verify.appraise`` accepted a server. It is the value that the
sealing code asks for, so code that forgot to verify, or dropped the answer, has nothing to seal with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from datetime import datetime, timedelta
from typing import Final, NoReturn

from confonnx.attestation.claims import Claims
from confonnx.attestation.statement import AttestedKey, ModelDescription, Statement
from confonnx.errors import AttestationExpiredError, ConfigurationError, ModelNotFoundError
from confonnx.ohttp.chunked import ChunkedRequestSealer
from confonnx.ohttp.encapsulation import ResponseOpener, encapsulate_request
from confonnx.ohttp.kem import Kem
from confonnx.ohttp.reader import Buffer
from confonnx.ohttp.session import SenderSession

KEM_PREFERENCE: Final = (
    Kem.MLKEM768_X25519,
    Kem.X25519,
)  # D1: the hybrid stands while one of its halves does

APPRAISER: Final = object()
"""What ``verify.appraise`` shows to make an ``AttestedKeys``; tests/architecture holds that nothing else
names it.
"""


@dataclass(frozen=True, slots=True)
class AttestedKeys:
    """A server that a policy accepts, and its keys.

    ``claims`` and ``statement`` are what was verified; ``models`` are the statement's models that the
    policy accepts; ``keys`` are the statement's keys, each ``not_after`` cut to the policy's key age. It
    vouches for the keys from ``verified_at`` until before ``valid_until``; ``clock_skew`` is how far the
    server's clock may be from the caller's.
    """

    claims: Claims
    statement: Statement
    models: tuple[ModelDescription, ...]
    keys: tuple[AttestedKey, ...]
    verified_at: datetime
    valid_until: datetime
    clock_skew: timedelta
    appraiser: InitVar[object]

    def __post_init__(self, appraiser: object) -> None:
        if appraiser is not APPRAISER:
            raise TypeError("AttestedKeys are made by confonnx.attestation.verify.appraise alone")

    def __reduce__(self) -> NoReturn:
        # Unpickling would make one without an appraisal.
        raise TypeError("AttestedKeys cannot be copied or stored: keep the bundle, and appraise it again")

    def select_model(self, name: str | None = None, version: str | None = None) -> ModelDescription:
        """The accepted model of that name (the only one when None) and version (the highest when None).

        Raises ``ModelNotFoundError``; a model whose digest the policy does not accept is not found.
        """
        names = {model.name for model in self.models}
        if name is None and len(names) > 1:
            raise ModelNotFoundError(f"the server has several models, name one of {', '.join(sorted(names))}")
        matching = [
            model for model in self.models if name in (None, model.name) and version in (None, model.version)
        ]
        if not matching:
            raise ModelNotFoundError(self._why_not_found(name, version))
        return max(matching, key=lambda model: _version_order(model.version))

    def encapsulate(
        self, parts: Sequence[Buffer], *, now: datetime, pad: bool = True, kem: Kem | None = None
    ) -> tuple[bytearray, ResponseOpener]:
        """Seals ``parts``, together one Binary HTTP request, to the key of ``now``; RFC 9458 §4.3.

        Returns the encapsulated request and what opens its response. Raises as ``key_at`` does.
        """
        return encapsulate_request(self.key_at(now, kem=kem).config, parts, pad=pad)

    def begin_session(self, *, now: datetime, kem: Kem | None = None) -> tuple[AttestedKey, SenderSession]:
        """A new session (docs/spec/sessions.md) to the key of ``now``, and that key.

        Whoever uses it ends it when ``key_at`` gives another key. Raises as ``key_at`` does.
        """
        key = self.key_at(now, kem=kem)
        return key, SenderSession(key.config)

    def begin_stream(
        self, *, now: datetime, kem: Kem | None = None
    ) -> tuple[AttestedKey, ChunkedRequestSealer]:
        """What seals the chunks of one streamed request (docs/spec/streams.md) to the key of ``now``, and
        that key.

        Whoever uses it ends it when ``key_at`` gives another key. Raises as ``key_at`` does.
        """
        key = self.key_at(now, kem=kem)
        return key, ChunkedRequestSealer(key.config)

    def key_at(self, now: datetime, *, kem: Kem | None = None) -> AttestedKey:
        """The key to seal to at ``now``: of the earliest epoch that has not ended, so a client passes to
        the next one at rollover without asking; of ``kem``, or by ``KEM_PREFERENCE``.

        Raises ``AttestationExpiredError`` when the appraisal does not vouch for ``now``, and
        ``ConfigurationError`` when the server has no key for ``kem``.
        """
        if not self.verified_at - self.clock_skew <= now < self.valid_until:
            raise AttestationExpiredError(
                f"the verification holds from {self.verified_at.isoformat()} until "
                f"{self.valid_until.isoformat()}, and it is {now.isoformat()}: verify the server again"
            )
        current = usable_keys(self.keys, now=now, clock_skew=self.clock_skew)
        if not current:
            raise AttestationExpiredError(
                f"no attested key is valid at {now.isoformat()}: verify the server again"
            )
        wanted = KEM_PREFERENCE if kem is None else (kem,)
        ordered = [key for choice in wanted for key in current if key.config.kem is choice]
        if not ordered:
            offered = ", ".join(sorted({key.config.kem.name for key in current}))
            raise ConfigurationError(
                f"the server has no key for {kem.name if kem else 'a known KEM'}, it has {offered}"
            )
        return min(ordered, key=lambda key: key.epoch)

    def _why_not_found(self, name: str | None, version: str | None) -> str:
        wanted = f"model {name!r}" if name is not None else "model"
        wanted += f" version {version!r}" if version is not None else ""
        has = ", ".join(f"{model.name} version {model.version}" for model in self.models)
        refused = any(
            name in (None, model.name) and version in (None, model.version) for model in self.statement.models
        )
        hint = "; the server has it, but the policy does not accept its digest" if refused else ""
        return f"no {wanted}{hint}; accepted are: {has}"


def usable_keys(
    keys: Sequence[AttestedKey], *, now: datetime, clock_skew: timedelta
) -> tuple[AttestedKey, ...]:
    """Those of ``keys`` that may be sealed to at ``now``, when the server's clock may be ``clock_skew``
    behind or ahead.
    """
    return tuple(key for key in keys if key.not_before <= now + clock_skew and now < key.not_after)


def _version_order(version: str) -> tuple[int, str]:
    """Numbers by value and after every name; names by text."""
    return (int(version), "") if version.isascii() and version.isdecimal() else (-1, version)
