"""Sealed against plaintext: the same server, model, machine and seconds, and what the seal costs as a ratio.

``python -m benchmarks.sealed_vs_plain [--quick] [--json FILE]``

The variants answer the same predictions: onnxruntime in process, with nothing around it; a minimal plaintext
server; confonnx with the seal bypassed (in this benchmark only); and confonnx with sealed requests, in a
session or each with a key encapsulation of its own, to X25519 and to X-Wing. Rounds follow each other; in
every round each variant has one window, in an order that a seed shuffles; a ratio is taken within a round.
Before any time counts, every variant's answer was found equal to what onnxruntime says in process, and so is
every answer of every window.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Results
from benchmarks.generator import worker
from benchmarks.machine import choose_cores, describe_machine
from benchmarks.memory import measure_growth
from benchmarks.report import Column, Report
from benchmarks.rounds import Bench, say
from benchmarks.servers import Server, confonnx_server, minimal_server
from benchmarks.variants import OURS, Variant
from benchmarks.workloads import NAMES, make_workloads

_CLIENT_CONCURRENCIES = {"tiny": (1, 8), "cnn": (1,), "identity-16": (1,)}
_COLUMNS = (
    Column("p50", Variant.PLAIN),
    Column("rate", Variant.PLAIN),
    Column("server_cpu", Variant.PLAIN),
    Column("p50", Variant.MINIMAL),
    Column("rate", Variant.MINIMAL),
    Column("p50", Variant.IN_PROCESS),
    Column("rate", Variant.IN_PROCESS),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything. ``window`` in seconds; the rounds are per workload and view."""

    window: float
    rounds: int
    client_rounds: int
    concurrencies: frozenset[int]
    models: tuple[str, ...]


FULL = Plan(window=0.3, rounds=12, client_rounds=8, concurrencies=frozenset({1, 8, 32}), models=NAMES)
QUICK = Plan(
    window=0.1,
    rounds=1,
    client_rounds=1,
    concurrencies=frozenset({1, 8}),
    models=("tiny", "cnn", "identity-4"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON."""
    given = _parse(arguments)
    cores = choose_cores()
    machine = describe_machine(cores)
    plan = QUICK if given.quick else FULL
    if given.rounds is not None:
        plan = replace(plan, rounds=given.rounds, client_rounds=given.rounds)
    results = Results()
    order = random.Random(given.seed)
    growths = []
    with (
        TemporaryDirectory() as directory,
        worker(cores.generator) as load,
        worker(cores.server) as limit,
    ):
        workloads = make_workloads(given.models or plan.models, Path(directory))
        for workload in workloads:
            with minimal_server(workload, cores) as minimal, confonnx_server(workload, cores) as confonnx:
                servers: dict[Variant, Server | None] = {
                    Variant.IN_PROCESS: None,
                    Variant.MINIMAL: minimal,
                    **dict.fromkeys(OURS, confonnx),
                }
                bench = Bench(workload, servers, load, limit, order, results, plan.window)
                _measure(bench, plan)
        large = [workload for workload in workloads if workload.large][-1:]
        for workload in large:
            say(f"{workload.name}: memory")
            growths += measure_growth(workload, (Variant.MINIMAL, *OURS), cores=cores, generator=load)
    machine = replace(machine, load=(*machine.load, os.getloadavg()[0]))
    settings = {
        "window": f"{plan.window} s",
        "rounds": plan.rounds,
        "client rounds": plan.client_rounds,
        "seed": given.seed,
    }
    report = Report(machine, settings, workloads, results, growths, OURS, (_COLUMNS,))
    print(report.text())
    if given.json is not None:
        report.write_json(given.json)


def _measure(bench: Bench, plan: Plan) -> None:
    name = bench.workload.name
    server = [c for c in bench.workload.concurrencies if c in plan.concurrencies]
    client = [c for c in _CLIENT_CONCURRENCIES.get(name, ()) if c in plan.concurrencies]
    bench.measure("server", server, tuple(bench.servers), rounds=plan.rounds)
    bench.measure("client", client, OURS, rounds=plan.client_rounds)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sealed_vs_plain", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--quick", action="store_true", help="a minute instead of half an hour: a look, no measurement"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every round, machine-readable")
    parser.add_argument("--models", nargs="+", choices=NAMES, help="only these")
    parser.add_argument("--rounds", type=int, help=f"for each model (default: {FULL.rounds})")
    parser.add_argument("--seed", type=int, default=1, help="of the order within rounds (default: 1)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
