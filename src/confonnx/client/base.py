"""What `Client` and `AsyncClient` share: their options, their state, and everything that needs no waiting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from time import monotonic
from typing import Generic, Protocol, TypeVar

from confonnx.attestation.bundle import Bundle
from confonnx.attestation.endorse.endorser import Endorser
from confonnx.attestation.endorse.exchange import Endorsements
from confonnx.attestation.endorse.options import EndorsementOptions, Mode, parse_mode
from confonnx.attestation.policy import Policy
from confonnx.attestation.result import AttestedKeys
from confonnx.client.flows import ClientState, Flows
from confonnx.client.options import (
    DEFAULT_MAX_RESPONSE_BYTES,
    DEFAULT_TIMEOUT,
    ClientOptions,
    Connection,
    IngressAuth,
    check_timeout,
    ingress_authorization,
    parse_relay,
    parse_url,
    sealed_authorization,
)
from confonnx.errors import ConfigurationError, TransportError


class Clock(Protocol):
    """Where a client reads the time: its transport."""

    def now(self) -> datetime:
        """The local clock, aware UTC."""
        ...


TransportT = TypeVar("TransportT", bound=Clock)


class ClientBase(ABC, Generic[TransportT]):
    """Options, state and properties of a client. Mutable: it holds the verified keys and the connections."""

    def __init__(
        self,
        url: str,
        *,
        auth_key: str | None = None,
        auth_user: str | None = None,
        auth_pass: str | None = None,
        auth: Mapping[str, str] | None = None,
        ingress_auth: IngressAuth | None = None,
        enclave_hash: str | Sequence[str] | None = None,
        enclave_signing_key: str | bytes | None = None,
        enclave_model_hash: str | Sequence[str] | None = None,
        enclave_allow_debug: bool = False,
        allow_simulated: bool = False,
        dangerous_any_model: bool = False,
        policy: Policy | None = None,
        endorsements: str | EndorsementOptions = "bundled",
        sessions: bool | None = None,
        relay: str | None = None,
        relay_auth: IngressAuth | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES,
        ca_file: str | PathLike[str] | None = None,
        proxy: str | None = None,
        dangerous_skip_tls_verification: bool = False,
        dangerous_no_padding: bool = False,
        transport: TransportT | None = None,
    ) -> None:
        """Connects to nothing yet: the first call verifies the server.

        **Where**

        ``url``: ``http://`` or ``https://``, host, port, and the path prefix of an ingress if there is one
        (``https://example.org/mymodel``). ``http://`` is fine for what matters: requests and answers are
        sealed to the verified server whatever carries them. It does show ``ingress_auth`` and the host's name
        to the network. ``ca_file``: PEM file of the authorities for https; otherwise the system's. ``proxy``:
        URL of an HTTP proxy. The environment (``HTTPS_PROXY``, ``.netrc`` …) is not read.
        ``dangerous_skip_tls_verification`` accepts any certificate. Redirects are not followed.

        **Whom to trust**: either ``policy``, or the simple options, of which code identity and model are
        required:

        ``enclave_hash``: hex measurement of the code, or several. ``enclave_signing_key``: PEM public key of
        whoever signed it. ``enclave_model_hash``: hex SHA-256 of the model (`confonnx hash-model`) or
        several, or ``dangerous_any_model``. ``enclave_allow_debug``: accept code that its host can read.
        ``allow_simulated``: accept a simulated TEE, which protects nothing. ``endorsements``: where the
        CPU vendor's certificates and revocation lists come from: ``bundled`` with the server's answer, which
        needs no other network; ``fetch`` from the vendor, so that the server cannot choose older ones;
        ``cached`` from disk, and from the vendor what is missing or no longer current; or
        `EndorsementOptions`.

        **Credentials**

        ``auth_key``, or ``auth_user`` and ``auth_pass``: for the server; they travel sealed, and only after
        it was verified. ``auth={'key': …}`` or ``auth={'user': …, 'pass': …}`` is the older form of the same.
        ``ingress_auth``: ``(user, password)`` or a bearer token for an ingress before the server, which is
        sent outside the seal on every request, so that its operator can read it.

        **Linkable or not**

        ``sessions``: many requests share one encapsulation, the dearest part of a small request; whoever
        carries them can then tell that they are one client's. This is the default without a relay; with
        False each request stands alone, as plain Oblivious HTTP (RFC 9458). ``relay``: URL of an Oblivious
        HTTP relay that forwards to this server, and takes every sealed request: the server's host then sees
        requests without sender, the relay senders without requests. Each stands alone, no cookie is kept, and
        the relay gets no credentials but ``relay_auth``, which is like ``ingress_auth``. Evidence, which
        relays do not carry, is still fetched from ``url``, so the host sees who verifies; ``proxy`` hides
        that. Credentials for the server (``auth_key`` …) show it, inside the seal, whose requests they are.

        **Limits**

        ``timeout``: seconds for a whole call; None waits for ever. ``max_response_bytes``: of one answer; the
        limit that the server attests to holds too. Requests and answers are padded, so that their exact size
        does not show; ``dangerous_no_padding`` leaves that out of requests.

        ``transport`` replaces the network (tests, other HTTP stacks); the client closes it.

        Raises ConfigurationError for options that are wrong, missing or contradict each other.
        """
        simple = (enclave_hash, enclave_signing_key, enclave_model_hash)
        switches = (enclave_allow_debug, allow_simulated, dangerous_any_model)
        if policy is None:
            policy = Policy.simple(
                enclave_hash=enclave_hash,
                enclave_signing_key=enclave_signing_key,
                enclave_model_hash=enclave_model_hash,
                allow_debug=enclave_allow_debug,
                allow_simulated=allow_simulated,
                dangerous_any_model=dangerous_any_model,
            )
        elif any(switches) or any(option is not None for option in simple):
            raise ConfigurationError(
                "policy= says everything about trust, so leave out the other options about it"
            )
        self._options = ClientOptions(
            connection=Connection(
                url=parse_url(url),
                ingress_authorization=ingress_authorization(ingress_auth),
                ca_file=ca_file,
                proxy=proxy,
                relay=None if relay is None else parse_relay(relay),
                relay_authorization=ingress_authorization(relay_auth, option="relay_auth"),
                skip_tls_verification=dangerous_skip_tls_verification,
            ),
            policy=policy,
            endorsements=_endorsement_options(endorsements),
            timeout=timeout,
            max_response_bytes=max_response_bytes,
            pad=not dangerous_no_padding,
            sessions=relay is None if sessions is None else sessions,
            sealed_authorization=sealed_authorization(
                auth_key=auth_key, auth_user=auth_user, auth_pass=auth_pass, auth=auth
            ),
        )
        self._state = ClientState()
        self._flows = Flows(self._options, self._state)
        self._endorser = _endorser(self._options)
        self._transport = transport if transport is not None else self._connect(self._options.connection)
        self._closed = False
        self._prepare()

    @property
    def attestation(self) -> AttestedKeys | None:
        """What was verified about the server and is in use now; None before the first call."""
        return self._state.keys

    def __repr__(self) -> str:
        keys = self._state.keys
        if self._closed:
            state = "closed"
        elif keys is None:
            state = "not verified yet"
        else:
            state = f"{keys.claims.tee} verified until {keys.valid_until.isoformat(timespec='seconds')}"
        return f"<{type(self).__name__} {self._options.connection.url} {state}>"

    @staticmethod
    @abstractmethod
    def _connect(connection: Connection) -> TransportT:
        """The transport over the network."""

    @abstractmethod
    def _prepare(self) -> None:
        """Sets what only this kind of client holds."""

    def _endorse(self, found: Bundle, now: datetime, deadline: Deadline) -> Endorsements:
        """The endorsements that `EndorsementsWanted` asks for."""
        assert self._endorser is not None  # the flow asks only where the options say so
        return self._endorser.collect(
            found.evidence_type, found.evidence, found.endorsements, now=now, timeout=deadline.left()
        )

    def _shut(self) -> None:
        """What closing means whatever the transport."""
        self._closed = True
        if self._endorser is not None:
            self._endorser.close()

    def _deadline(self, timeout: float | None) -> Deadline:
        """The deadline of a call that starts now: ``timeout``, or else the client's. Raises once closed."""
        self._check_open()
        seconds = self._options.timeout if timeout is None else check_timeout(timeout)
        return Deadline(seconds, monotonic())

    def _check_open(self) -> None:
        """Raises ConfigurationError once the client is closed, also in the middle of a call."""
        if self._closed:
            raise ConfigurationError(
                f"this client of {self._options.connection.url} is closed; make a new one"
            )


def _endorsement_options(endorsements: str | EndorsementOptions) -> EndorsementOptions:
    if isinstance(endorsements, EndorsementOptions):
        return endorsements
    return EndorsementOptions(mode=parse_mode(endorsements))


def _endorser(options: ClientOptions) -> Endorser | None:
    if options.endorsements.mode is Mode.BUNDLED:
        return None
    connection = options.connection
    return Endorser(options.endorsements, ca_file=connection.ca_file, proxy=connection.proxy)


@dataclass(frozen=True, slots=True)
class Deadline:
    """``seconds`` after ``started_at`` on the monotonic clock; never where ``seconds`` is None."""

    seconds: float | None
    started_at: float

    def left(self) -> float | None:
        """The seconds left; None for no limit. Raises TransportError when there are none."""
        if self.seconds is None:
            return None
        left = self.started_at + self.seconds - monotonic()
        if left <= 0:
            raise self.passed()
        return left

    def passed(self) -> TransportError:
        """The error for a call that did not end in time."""
        return TransportError(f"no answer within {self.seconds:g} s; give a longer timeout= if it needs more")
