"""What happens when too many come: many connections, twice the requests, more bytes than there is memory for.

``python -m benchmarks.overload [--quick] [--json FILE]``

1. *Connections*: requests a second at 8, 100 and 1,000 connections, all of them busy; and with 8 busy ones
   beside others that are open and silent. As a ratio to 8, in interleaved rounds.
2. *Overload*: requests arrive at random, at half of, at and at twice the rate that the server was found to
   serve. How long those wait that are answered, and how many are refused.
3. *Memory*: 32 requests of 16 MiB at once, against the limit of what may be held (``max_buffered_bytes``).

Sealed, over raw sockets; every answer is held against what onnxruntime says in process.
"""

from __future__ import annotations

import argparse
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.exchanges import prepare
from benchmarks.figures import Round
from benchmarks.generator import Outcome, Window, Worker, peak_sum, reset_peaks, run_window, worker
from benchmarks.load import ask_once
from benchmarks.machine import Cores, choose_cores, describe_machine, resident_bytes
from benchmarks.open_loop import allow_connections, run_open_loop
from benchmarks.quantiles import Spread, paired_ratios, quantile, spread
from benchmarks.report import write_json
from benchmarks.rounds import say
from benchmarks.servers import confonnx_server
from benchmarks.variants import Variant
from benchmarks.workloads import Workload, make_workloads

CONNECTIONS = (8, 100, 1000)
FACTORS = (0.5, 1.0, 2.0)
_POOL = 900
_ROOM = 4096  # bytes of an answer of the small models
_SEED = 1
_OPTIONS = {"CONFONNX_MAX_CONNECTIONS": str(max(CONNECTIONS) + 100)}


@dataclass(frozen=True, slots=True)
class Crowd:
    """A window with ``silent`` connections beside."""

    window: Window
    silent: int


@dataclass(frozen=True, slots=True)
class Scaling:
    """Requests a second with ``connections``, ``busy`` of them at work, as a ratio to 8."""

    connections: int
    busy: int
    rate: float
    p99: float
    ratio: Spread


@dataclass(frozen=True, slots=True)
class Storm:
    """``rate`` requests a second for ``seconds``, to a server with process ids ``window.pids``."""

    window: Window
    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Weather:
    """What came of a storm. Rates a second; latencies in seconds, from when a request was due.

    ``outcomes``: how many requests ended with each status; 0 stands for a connection that the server closed,
    -1 for requests that found no connection free, which the generator keeps to itself.
    """

    offered: float
    served: float
    outcomes: dict[int, int]
    p50: float
    p99: float
    refusal_p99: float
    generator_share: float
    peak: int

    @property
    def refused(self) -> float:
        """The share of requests that were not answered with 200."""
        return 1 - self.outcomes.get(200, 0) / sum(self.outcomes.values())


@dataclass(frozen=True, slots=True)
class Flood:
    """Requests of ``payload`` bytes at once, where ``limit`` may be held. ``growth``: the peak above idle."""

    requests: int
    payload: int
    limit: int
    growth: int
    outcomes: dict[int, int]


@dataclass(slots=True)
class Findings:
    """Everything. Mutable: it grows."""

    scaling: list[Scaling] = field(default_factory=list)
    weather: dict[str, dict[float, Weather]] = field(default_factory=dict)
    capacity: dict[str, float] = field(default_factory=dict)
    floods: list[Flood] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    given = _parse(arguments)
    cores = choose_cores()
    machine = describe_machine(cores)
    findings = Findings()
    allow_connections(2 * max(CONNECTIONS))
    with TemporaryDirectory() as directory, worker(cores.generator) as load:
        tiny, cnn, large = make_workloads(["tiny", "cnn", "identity-16"], Path(directory))
        findings.scaling = measure_scaling(tiny, cores, load, rounds=1 if given.quick else 9)
        for workload, variant in ((tiny, Variant.XWING), (cnn, Variant.SESSION_XWING)):
            name = f"{workload.name}, {variant}"
            capacity, weather = measure_storms(
                workload, variant, cores, load, seconds=2.0 if given.quick else 10.0
            )
            findings.capacity[name], findings.weather[name] = capacity, weather
        for limit in (128 << 20, 512 << 20):
            findings.floods.append(measure_flood(large, limit, cores, load))
    printed = f"{machine.started_at}; {machine.cpus} × {machine.cpu}\n{text(findings)}"
    print(printed)
    if given.json is not None:
        document = {"text": printed, "machine": asdict(machine), **asdict(findings)}
        write_json(given.json, document)


def measure_scaling(workload: Workload, cores: Cores, load: Worker, *, rounds: int) -> list[Scaling]:
    """Connections, in rounds; the first is what the others are compared with."""
    cells = [(count, count) for count in CONNECTIONS] + [(count, 8) for count in CONNECTIONS[1:]]
    found: dict[tuple[int, int], list[Round]] = {cell: [] for cell in cells}
    with confonnx_server(workload, cores, _OPTIONS) as server:
        for number in range(rounds):
            say(f"connections: round {number + 1} of {rounds}")
            for connections, busy in cells:
                count = max(3 * busy, 2000)
                window = Window(Variant.SESSION_XWING, workload, server.port, server.pids, busy, count)
                crowd = Crowd(window, connections - busy)
                found[connections, busy].append(Round.of(load.run(run_crowd, crowd)))
    base = [entry.rate for entry in found[cells[0]]]
    return [
        Scaling(
            connections,
            busy,
            rate=quantile([entry.rate for entry in entries], 0.5),
            p99=quantile([entry.p99 for entry in entries], 0.5),
            ratio=spread(paired_ratios([entry.rate for entry in entries], base)),
        )
        for (connections, busy), entries in found.items()
    ]


def run_crowd(crowd: Crowd) -> Outcome:
    """The window, while the silent ones are connected."""
    allow_connections(crowd.silent + crowd.window.concurrency)
    silent = [socket.create_connection(("127.0.0.1", crowd.window.port)) for _ in range(crowd.silent)]
    try:
        return run_window(crowd.window)
    finally:
        for connection in silent:
            connection.close()


def measure_storms(
    workload: Workload, variant: Variant, cores: Cores, load: Worker, *, seconds: float
) -> tuple[float, dict[float, Weather]]:
    """The rate that a closed loop gets, and what comes of multiples of it."""
    weather = {}
    with confonnx_server(workload, cores, _OPTIONS) as server:
        window = Window(variant, workload, server.port, server.pids, concurrency=32, count=64)
        load.run(run_window, window)  # warms up
        count = int(min(0.5 / workload.in_process, 3000)) + 64
        window = Window(variant, workload, server.port, server.pids, concurrency=32, count=count)
        capacity = Round.of(load.run(run_window, window)).rate
        for factor in FACTORS:
            say(f"{workload.name}: {factor:g} × {capacity:,.0f} requests a second")
            weather[factor] = load.run(run_storm, Storm(window, factor * capacity, seconds))
    return capacity, weather


def run_storm(storm: Storm) -> Weather:
    """Requests that arrive at random, independently of each other (a Poisson process)."""
    allow_connections(_POOL)
    window = storm.window
    count = int(storm.rate * storm.seconds)
    due = np.cumsum(np.random.default_rng(_SEED).exponential(1 / storm.rate, count))
    asked = len(window.workload.cases)
    prepared = prepare(window.variant, window.workload, port=window.port, count=asked + count)
    for number in range(asked):  # so that a session is known
        first = ask_once(window.port, prepared.messages[number])
        prepared.check(number, memoryview(first), window.workload)
    reset_peaks(window.pids)
    served = run_open_loop(
        port=window.port,
        pids=window.pids,
        messages=prepared.messages[asked:],
        due=due.tolist(),
        connections=_POOL,
        room=_ROOM,
    )
    statuses = np.zeros(count, int)
    for number, answer in enumerate(served.answers):
        if answer is not None:
            statuses[number] = prepared.judge(asked + number, memoryview(answer), window.workload)
    outcomes = Counter(statuses.tolist())
    outcomes[0] -= served.no_connection
    outcomes[-1] = served.no_connection
    good, bad = served.latencies[statuses == 200], served.latencies[statuses > 200]
    elapsed = served.timings.elapsed
    return Weather(
        offered=count / float(due[-1]),
        served=len(good) / elapsed,
        outcomes={status: number for status, number in sorted(outcomes.items()) if number},
        p50=quantile(good, 0.5),
        p99=quantile(good, 0.99),
        refusal_p99=quantile(bad, 0.99) if len(bad) else 0.0,
        generator_share=served.timings.generator_cpu / elapsed,
        peak=peak_sum(window.pids),
    )


def measure_flood(workload: Workload, limit: int, cores: Cores, load: Worker) -> Flood:
    """32 large requests at once."""
    with confonnx_server(workload, cores, {"CONFONNX_MAX_BUFFERED_BYTES": str(limit)}) as server:
        window = Window(Variant.SESSION_XWING, workload, server.port, server.pids, concurrency=32, count=32)
        say(f"memory: 32 requests of {workload.input_bytes >> 20} MiB, {limit >> 20} MiB may be held")
        return load.run(run_flood, (window, limit))


def run_flood(asked: tuple[Window, int]) -> Flood:
    """All requests of the window at once, each on a connection of its own."""
    window, limit = asked
    prepared = prepare(window.variant, window.workload, port=window.port, count=1 + window.count)
    first = ask_once(window.port, prepared.messages[0])
    prepared.check(0, memoryview(first), window.workload)
    before = sum(map(resident_bytes, window.pids))
    reset_peaks(window.pids)
    served = run_open_loop(
        port=window.port,
        pids=window.pids,
        messages=prepared.messages[1:],
        due=[0.0] * window.count,
        connections=window.count,
        room=len(first) + _ROOM,
    )
    growth = peak_sum(window.pids) - before
    outcomes = Counter(
        0 if answer is None else prepared.judge(number, memoryview(answer), window.workload)
        for number, answer in enumerate(served.answers, 1)
    )
    return Flood(window.count, window.workload.input_bytes, limit, growth, dict(sorted(outcomes.items())))


def text(findings: Findings) -> str:
    """Three tables."""
    lines = ["", "Connections: tiny, session X-Wing", "  open  busy    req/s       p99  / 8 connections"]
    lines += [
        f"{row.connections:>6,} {row.busy:>5,} {row.rate:>8,.0f} {row.p99 * 1e3:>6.1f} ms  "
        f"{row.ratio.median:.2f} [{row.ratio.low:.2f}–{row.ratio.high:.2f}]"
        for row in findings.scaling
    ]
    for name, weather in findings.weather.items():
        lines += [
            "",
            f"Overload: {name}; {findings.capacity[name]:,.0f} requests a second in a closed loop of 32",
        ]
        lines.append(
            "  load  offered/s  served/s  refused       p50       p99  p99 of refusals  gen  outcomes"
        )
        lines += [_weather_line(factor, found) for factor, found in weather.items()]
    lines += ["", "Memory: requests at once, and the server's peak above idle"]
    lines += [
        f"{flood.requests} × {flood.payload >> 20} MiB, limit {flood.limit >> 20} MiB: "
        f"{flood.growth / 2**20:,.0f} MiB, {flood.growth / flood.limit:.2f} × the limit; "
        f"{_outcomes(flood.outcomes)}"
        for flood in findings.floods
    ]
    return "\n".join(lines)


def _weather_line(factor: float, found: Weather) -> str:
    return (
        f"{factor:>5g}× {found.offered:>10,.0f} {found.served:>9,.0f} {found.refused:>8.1%} "
        f"{found.p50 * 1e3:>6,.0f} ms {found.p99 * 1e3:>6,.0f} ms {found.refusal_p99 * 1e3:>13,.0f} ms "
        f"{found.generator_share:>4.0%}  {_outcomes(found.outcomes)}"
    )


def _outcomes(outcomes: dict[int, int]) -> str:
    names = {0: "closed", -1: "not sent"}
    return ", ".join(f"{names.get(status, status)}: {number}" for status, number in outcomes.items())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overload", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="one round, short storms: a look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything, machine-readable")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
