"""Sealed against plaintext: the same server, model, machine and seconds, and what the seal costs as a ratio.

``python -m benchmarks.sealed_vs_plain [--quick] [--json FILE]``

Four variants answer the same prediction: a minimal plaintext server, confonnx with the seal bypassed (in this
benchmark only), and confonnx with requests sealed to X25519 and to X-Wing. Rounds follow each other; in every
round each variant has one window, in an order that a seed shuffles; a ratio is taken within a round. Before
any time counts, every variant's answer was found equal to what onnxruntime says in process, and so is every
answer of every window.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.calls import CallWindow, run_calls
from benchmarks.exchanges import Variant
from benchmarks.figures import Cell, Results
from benchmarks.generator import Generator, Outcome, Window, generator, run_window
from benchmarks.machine import Cores, choose_cores, describe_machine
from benchmarks.memory import measure_growth
from benchmarks.report import Report
from benchmarks.servers import Server, confonnx_server, minimal_server
from benchmarks.workloads import Workload, make_workloads

_NAMES = ("tiny", "cnn", "identity")
_CLIENT_CONCURRENCIES = {"tiny": (1, 8), "cnn": (1,), "identity": (1,)}
_CLIENT_VARIANTS = (Variant.PLAIN, Variant.X25519, Variant.XWING)
_MAX_COUNT = 20_000
_MAX_WINDOW_BYTES = 384 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything. ``window`` in seconds; the rounds are per workload and view."""

    window: float
    rounds: int
    client_rounds: int
    concurrencies: frozenset[int]


FULL = Plan(window=0.3, rounds=18, client_rounds=10, concurrencies=frozenset({1, 2, 8, 32}))
QUICK = Plan(window=0.1, rounds=2, client_rounds=1, concurrencies=frozenset({1, 8}))


@dataclass(frozen=True, slots=True)
class Bench:
    """One workload, its two servers, and who makes the load."""

    plan: Plan
    workload: Workload
    minimal: Server
    confonnx: Server
    generator: Generator
    order: random.Random
    results: Results

    def measure(self) -> None:
        """Both views. Raises ``LoadError`` when a variant answers wrongly."""
        server = self._cells("server", self.workload.concurrencies, tuple(Variant))
        client = self._cells("client", _CLIENT_CONCURRENCIES[self.workload.name], _CLIENT_VARIANTS)
        self._rounds("server", self._counts(server), self.plan.rounds)
        self._rounds("client", self._counts(client), self.plan.client_rounds)

    def _rounds(self, view: str, counts: dict[Cell, int], rounds: int) -> None:
        for number in range(rounds):
            _say(f"{self.workload.name}, {view} view: round {number + 1} of {rounds}")
            for cell in self._shuffled(counts):
                self.results.add(cell, self._run(cell, counts[cell]))

    def _shuffled(self, counts: dict[Cell, int]) -> Iterator[Cell]:
        """The concurrencies in random order, and within each the variants: those that are compared stay
        neighbours.
        """
        concurrencies = sorted({cell.concurrency for cell in counts})
        for concurrency in self.order.sample(concurrencies, len(concurrencies)):
            cells = [cell for cell in counts if cell.concurrency == concurrency]
            yield from self.order.sample(cells, len(cells))

    def _cells(self, view: str, concurrencies: Sequence[int], variants: Sequence[Variant]) -> list[Cell]:
        return [
            Cell(view, self.workload.name, concurrency, variant)
            for concurrency in concurrencies
            if concurrency in self.plan.concurrencies
            for variant in variants
        ]

    def _counts(self, cells: Sequence[Cell]) -> dict[Cell, int]:
        """How many requests fill a window of each cell, by a trial that also warms everything up."""
        return {cell: self._window_size(cell, self._run(cell, self._trial_size(cell))) for cell in cells}

    def _trial_size(self, cell: Cell) -> int:
        by_time = int(0.2 * self.plan.window / self.workload.in_process)
        by_memory = (64 << 20) // self.workload.input.nbytes
        return 2 * cell.concurrency + min(200, by_time, by_memory)

    def _window_size(self, cell: Cell, trial: Outcome) -> int:
        rate = len(trial.timings.latencies) / trial.timings.elapsed
        ceiling = min(_MAX_COUNT, _MAX_WINDOW_BYTES // self.workload.input.nbytes)
        return max(min(int(rate * self.plan.window), ceiling), 2 * cell.concurrency, 3)

    def _run(self, cell: Cell, count: int) -> Outcome:
        server = self.minimal if cell.variant is Variant.MINIMAL else self.confonnx
        window = Window(cell.variant, self.workload, server.port, server.pid, cell.concurrency, count)
        if cell.view == "server":
            return self.generator.run(run_window, window)
        return self.generator.run(run_calls, CallWindow(window, server.measurement))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON."""
    given = _parse(arguments)
    cores = choose_cores()
    machine = describe_machine(cores)
    plan = QUICK if given.quick else FULL
    with TemporaryDirectory() as directory, generator(cores) as load:
        workloads = make_workloads(given.models, Path(directory))
        results = Results()
        order = random.Random(given.seed)
        growths = []
        for workload in workloads:
            _measure(workload, plan, cores, load, order, results)
            if workload.large:
                _say(f"{workload.name}: memory")
                growths += measure_growth(workload, Variant, cores=cores, generator=load)
    machine = replace(machine, load=(*machine.load, os.getloadavg()[0]))
    settings = {
        "window": f"{plan.window} s",
        "rounds": plan.rounds,
        "client rounds": plan.client_rounds,
        "seed": given.seed,
    }
    report = Report(machine, settings, workloads, results, growths)
    print(report.text())
    if given.json is not None:
        report.write_json(given.json)


def _measure(
    workload: Workload, plan: Plan, cores: Cores, load: Generator, order: random.Random, results: Results
) -> None:
    with minimal_server(workload, cores) as minimal, confonnx_server(workload, cores) as confonnx:
        Bench(plan, workload, minimal, confonnx, load, order, results).measure()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sealed_vs_plain", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--quick", action="store_true", help="a minute instead of ten: a look, no measurement"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every round, machine-readable")
    parser.add_argument("--models", nargs="+", choices=_NAMES, default=list(_NAMES), help="only these")
    parser.add_argument("--seed", type=int, default=1, help="of the order within rounds (default: 1)")
    return parser.parse_args(arguments)


def _say(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
