"""Which session a request goes into (docs/spec/sessions.md §3). Pure: the clock is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from confonnx.attestation.result import AttestedKeys
from confonnx.attestation.statement import AttestedKey
from confonnx.ohttp.session import SenderSession

MAX_AGE = timedelta(hours=1)
"""How long a session lasts at most, so that what one leaked context opens is bounded in time too."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session with a verified server, under one ``key`` of those it attested to."""

    key: AttestedKey = field(repr=False)
    started_at: datetime
    sender: SenderSession


def session_with(keys: AttestedKeys, *, now: datetime, instead_of: Session | None) -> Session:
    """``instead_of`` while it is good for a request at ``now``, else a new session.

    It is good while its key is the very object that ``keys`` give for ``now`` (those of another verification
    are others, since it may have found another server), and for ``MAX_AGE`` by a clock that may also have
    stepped back. Raises as `AttestedKeys.key_at` does: a session never outlives the verification.
    """
    if (
        instead_of is not None
        and instead_of.key is keys.key_at(now)
        and abs(now - instead_of.started_at) < MAX_AGE
    ):
        return instead_of
    key, sender = keys.begin_session(now=now)
    return Session(key, now, sender)
