"""The server as a process: put together, listen, roll keys over, drain, end.

One process is the whole server, or a worker of several (``processes``), which differs by its :class:`Share`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from confonnx.attestation.attest.attester import Attester
from confonnx.attestation.attest.simulated import measure_installation
from confonnx.attestation.claims import Tee
from confonnx.attestation.statement import StatementLimits
from confonnx.errors import ConfigurationError
from confonnx.keys.ring import KeyRing
from confonnx.models.repository import ModelFile, load_single, scan_repository
from confonnx.oip.limits import OipLimits
from confonnx.runtime.cpus import Threads, available_cpus
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.registry import Registry
from confonnx.runtime.scheduler import Scheduler
from confonnx.server.app import App, AppOptions
from confonnx.server.attestation import Attestation, Identity, TokenBucket
from confonnx.server.auth import Authenticator, Credential, load_credentials
from confonnx.server.connection import HttpLimits
from confonnx.server.control import wipe
from confonnx.server.head import HeadLimits
from confonnx.server.http import HttpServer
from confonnx.server.logs import (
    BackgroundError,
    Draining,
    HardeningFailed,
    KeyRollover,
    Log,
    Ready,
    SettingsWarning,
    Stopped,
    Unprotected,
)
from confonnx.server.memory import harden_memory, raise_descriptor_limit
from confonnx.server.metrics import Metrics, MetricsHandler
from confonnx.server.processes import serve_in_processes
from confonnx.server.replay import ReplayCache
from confonnx.server.routes import Routes
from confonnx.server.settings import Settings
from confonnx.server.tee import TurnsAttester, open_attester

_KEY_CHECK_SECONDS = 1.0
_SPARE_DESCRIPTORS = 128  # files, devices, the listeners, threads' wake-up pipes
_SIMULATED = (
    "the host can read every request and fake every answer; clients refuse this server unless they say "
    "--allow-simulated. For protection run it on SGX, TDX, SEV-SNP or Nitro"
)


def serve(settings: Settings, *, warnings: tuple[str, ...] = ()) -> int:
    """Run a server until SIGTERM or SIGINT, drain it, and give the process's exit status.

    ``warnings`` come from ``load_settings`` and go to the log. Raises ConfigurationError, ModelError and
    TeeError before anything listens.
    """
    log = Log(form=settings.log_format, level=settings.log_level)
    for measure in harden_memory():
        log.emit(HardeningFailed(measure=measure))
    for warning in warnings:
        log.emit(SettingsWarning(warning=warning))
    if not raise_descriptor_limit(settings.max_connections + _SPARE_DESCRIPTORS):
        log.emit(SettingsWarning(warning="--max-connections is over the system's limit of open files"))
    silence_hooks(log)
    return run(_main(settings, log))


@dataclass(frozen=True, slots=True)
class Share:
    """What a worker shares with the others of its server.

    ``secret`` is S(0) of the key ring, whose epoch 0 began at ``started_at``; it is wiped when the ring is
    made. ``exclusive`` gives a context in which no other worker uses the TEE's device.
    """

    processes: int
    started_at: datetime
    secret: bytearray = field(repr=False)
    exclusive: Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers, and the parts of it that its user may want to look at. ``port`` is 0 for a
    worker, which does not listen.
    """

    app: App
    registry: Registry
    ring: KeyRing
    tee: Tee
    measurement: bytes
    schemes: tuple[str, ...]
    metrics: Metrics
    http: HttpServer
    port: int
    metrics_port: int | None


@asynccontextmanager
async def running(
    settings: Settings, log: Log, *, share: Share | None = None, ended: Callable[[], None] = lambda: None
) -> AsyncIterator[Running]:
    """A server of these settings in the running event loop, drained at the end.

    With a ``share`` it is a worker: it does not listen, and connections are given to ``Running.http``;
    ``ended`` is called at the end of each. Raises as :func:`serve`, and BundleError for more models than a
    statement holds.
    """
    parts = _assemble(settings, log, share)
    http = HttpServer(parts.app, _http_limits(settings), streams=parts.app, ended=ended)
    scrape = HttpServer(MetricsHandler(parts.metrics), HttpLimits(max_connections=16, max_body=0))
    try:
        # A TEE that gives no evidence, or a statement over its bounds, ends the start.
        await parts.attestation.bundle(None)
        port, metrics_port = 0, None
        if share is not None:
            http.watch_time()
        else:
            port = await http.listen(settings.address, settings.http_port, option="--http-port")
            if settings.metrics:
                address = settings.metrics_address or settings.address
                metrics_port = await scrape.listen(address, settings.metrics_port, option="--metrics-port")
        parts.metrics.watch("connections", "Open connections.", lambda: http.connections)
        async with _keys_rolled_over(parts.ring, parts.app, log):
            yield Running(
                app=parts.app,
                registry=parts.registry,
                ring=parts.ring,
                tee=parts.tee,
                measurement=parts.measurement,
                schemes=parts.schemes,
                metrics=parts.metrics,
                http=http,
                port=port,
                metrics_port=metrics_port,
            )
            parts.accepting.clear()
            timeout = settings.drain_timeout.total_seconds()
            log.emit(Draining(connections=http.connections, timeout_seconds=timeout))
            log.emit(Stopped(complete=await http.drain(timeout)))
    finally:
        await http.drain(0)
        await scrape.drain(0)
        await parts.scheduler.close(timeout=0)  # whoever waited for its work is gone by now


def ready(settings: Settings, server: Running) -> Ready:
    """What the log says of a server that answers."""
    return Ready(
        url=settings.url(server.port),
        port=server.port,
        metrics_port=server.metrics_port,
        tee=server.tee.value,
        measurement=server.measurement.hex(),
        models=tuple(
            f"{model.description.name}/{model.description.version} sha256:{model.description.digest}"
            for model in server.registry.models
        ),
        authentication=server.schemes,
    )


def report_background_errors(log: Log) -> None:
    """Let ``log`` have what nobody awaits in the running event loop, without its text."""
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: log.emit(_background_error(context.get("exception")))
    )


async def _main(settings: Settings, log: Log) -> int:
    report_background_errors(log)
    if settings.processes > 1:
        return await serve_in_processes(settings, log)
    return await _serve(settings, log)


async def _serve(settings: Settings, log: Log) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    async with running(settings, log) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C ends the loop instead
                loop.add_signal_handler(number, stop.set)
        log.emit(ready(settings, server))
        await stop.wait()
    return 0


@asynccontextmanager
async def _keys_rolled_over(ring: KeyRing, app: App, log: Log) -> AsyncIterator[None]:
    task = asyncio.create_task(_roll_keys(ring, app, log))
    try:
        yield
    finally:
        task.cancel()


async def _roll_keys(ring: KeyRing, app: App, log: Log) -> None:
    """Move the ring with the clock, also to end the grace period of old keys."""
    epoch = ring.epoch
    while True:
        await asyncio.sleep(_KEY_CHECK_SECONDS)
        try:
            ring.advance(_now())
            if ring.epoch != epoch:  # whoever moved it: who asks for evidence does so too
                epoch = ring.epoch
                log.emit(KeyRollover(epoch=epoch))
        except ConfigurationError as error:  # the clock jumped by years: the keys stay, and are not renewed
            log.emit(SettingsWarning(warning=str(error)))
        app.forget_ended_sessions()


@dataclass(frozen=True, slots=True)
class _Parts:
    app: App
    attestation: Attestation
    registry: Registry
    ring: KeyRing
    metrics: Metrics
    scheduler: Scheduler
    accepting: asyncio.Event
    tee: Tee
    measurement: bytes
    schemes: tuple[str, ...]


def _assemble(settings: Settings, log: Log, share: Share | None) -> _Parts:
    """Everything but sockets; whatever is wrong with settings, models or the TEE comes out here."""
    authenticator = Authenticator(_credentials(settings))
    attester, measurement = _attester(settings, share)
    if attester.tee is Tee.SIMULATED:
        log.emit(Unprotected(advice=_SIMULATED))
    cpus = max(1, available_cpus() // (1 if share is None else share.processes))
    threads = Threads.plan(cpus, runs=settings.inference_threads, intra_op=settings.intra_op_threads)
    registry = Registry.load(
        _model_files(settings),
        _session_options(settings, threads),
        {rule.model: rule.options for rule in settings.batch},
    )
    ring = _ring(settings, share)
    metrics = Metrics()
    metrics.watch("key_age_seconds", "Age of the current key.", lambda: ring.age(_now()).total_seconds())
    scheduler = Scheduler(
        threads=threads.runs,
        max_queue=settings.max_queue,
        max_wait=(settings.max_queue_wait or settings.request_timeout).total_seconds(),
    )
    accepting = asyncio.Event()
    accepting.set()
    routes = Routes(
        registry=registry,
        scheduler=scheduler,
        metrics=metrics,
        version=_version(),
        timeout=settings.request_timeout.total_seconds(),
        is_ready=accepting.is_set,
        limits=OipLimits(),
    )
    attestation = _attestation(settings, ring, registry, attester, authenticator.schemes)
    app = App(
        ring=ring,
        attestation=attestation,
        authenticator=authenticator,
        replays=ReplayCache(window=settings.replay_window, capacity=settings.replay_capacity),
        routes=routes,
        metrics=metrics,
        log=log,
        now=_now,
        is_ready=accepting.is_set,
        options=AppOptions(
            url_prefix=settings.url_prefix,
            max_response_bytes=settings.max_response_bytes,
            pad=not settings.dangerous_no_padding,
            max_sessions=settings.max_sessions,
            max_request_bytes=settings.max_request_bytes,
        ),
    )
    return _Parts(
        app=app,
        attestation=attestation,
        registry=registry,
        ring=ring,
        metrics=metrics,
        scheduler=scheduler,
        accepting=accepting,
        tee=attester.tee,
        measurement=measurement,
        schemes=authenticator.schemes,
    )


def _attester(settings: Settings, share: Share | None) -> tuple[Attester, bytes]:
    """The Attester, and what it measures. Opening a TPM may make a key in it, which one worker has to do."""
    exclusive = contextlib.nullcontext if share is None else share.exclusive
    with exclusive():
        attester = open_attester(settings, measure_installation(settings.measured()), now=_now)
        measurement = attester.measure()
    return (attester if share is None else TurnsAttester(attester, share.exclusive)), measurement


def _ring(settings: Settings, share: Share | None) -> KeyRing:
    lifetime, grace = settings.key_rollover_interval, settings.grace
    if share is None:
        return KeyRing.generate(now=_now(), lifetime=lifetime, grace=grace)
    ring = KeyRing.generate(now=share.started_at, lifetime=lifetime, grace=grace, secret=share.secret)
    wipe(share.secret)
    ring.advance(_now())
    return ring


def _credentials(settings: Settings) -> tuple[Credential, ...]:
    key = settings.auth_key
    return load_credentials(
        auth_key=None if key is None else key.get_secret_value(), auth_file=settings.auth_file
    )


def _model_files(settings: Settings) -> tuple[ModelFile, ...]:
    libraries = settings.operator_libraries
    if settings.model_path is not None:
        return (load_single(settings.model_path, settings.model_name, libraries=libraries),)
    if settings.model_repository is not None:
        return scan_repository(settings.model_repository, libraries=libraries)
    raise ConfigurationError("no model to serve; give --model-path FILE or --model-repository DIRECTORY")


def _session_options(settings: Settings, threads: Threads) -> SessionOptions:
    return SessionOptions(
        intra_op_threads=threads.intra_op,
        inter_op_threads=settings.inter_op_threads,
        execution_mode=settings.execution_mode,
        graph_optimization=settings.graph_optimization,
        mem_arena=settings.mem_arena,
        mem_arena_shrinkage=settings.mem_arena_shrinkage,
        spinning=settings.spinning,
        operator_libraries=settings.operator_libraries,
    )


def _attestation(
    settings: Settings, ring: KeyRing, registry: Registry, attester: Attester, schemes: tuple[str, ...]
) -> Attestation:
    limits = StatementLimits(settings.max_request_bytes, settings.max_response_bytes, settings.replay_window)
    identity = Identity(
        models=tuple(model.description for model in registry.models),
        deployment=settings.deployment,
        server_version=_version(),
        authentication=schemes,
        limits=limits,
    )
    bucket = TokenBucket(
        rate=settings.attestation_rate, burst=settings.attestation_burst, clock=time.monotonic
    )
    return Attestation(ring=ring, identity=identity, attester=attester, bucket=bucket, now=_now)


def _http_limits(settings: Settings) -> HttpLimits:
    return HttpLimits(
        max_connections=settings.max_connections,
        head=HeadLimits(max_bytes=settings.max_header_bytes),
        max_body=settings.max_request_bytes,
        max_buffered=settings.max_buffered_bytes,
        header_timeout=settings.header_timeout.total_seconds(),
        idle_timeout=settings.idle_timeout.total_seconds(),
        transfer_grace=settings.transfer_grace.total_seconds(),
        min_rate=settings.min_transfer_rate,
    )


def silence_hooks(log: Log) -> None:
    """Errors in threads and destructors would be printed with their text, which may hold what was sealed."""
    sys.unraisablehook = lambda unraisable: log.emit(_background_error(unraisable.exc_value))
    threading.excepthook = lambda failure: log.emit(_background_error(failure.exc_value))


def _background_error(error: object) -> BackgroundError:
    return BackgroundError(exception=type(error).__name__)


def run(main: Coroutine[Any, Any, int]) -> int:
    """``main`` in an event loop of its own."""
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop  # not on Windows

    return int(uvloop.run(main))


def _version() -> str:
    return metadata.version("confonnx")


def _now() -> datetime:
    return datetime.now(UTC)
