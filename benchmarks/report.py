"""The results for people (text) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.exchanges import Variant
from benchmarks.figures import DISTURBANCE_LIMIT, ENOUGH_ROUNDS, GENERATOR_LIMIT, Cell, Results
from benchmarks.machine import Machine
from benchmarks.memory import Growth
from benchmarks.quantiles import Spread
from benchmarks.workloads import Workload

_VIEWS = {
    "server": "Server: requests sealed beforehand, raw sockets; CPU of the server",
    "client": "Client: confonnx.Client (c = 1) and AsyncClient against a plain client; CPU of the client",
}
_LEGEND = f"""\
c: requests at a time. req/s: median of the rounds. CPU: user and system time for one request.
gen: share of its core that the load generator used; G: {GENERATOR_LIMIT:.0%} or more, it was the limit.
other: share of one of the two cores that other processes used. Rounds with {DISTURBANCE_LIMIT:.0%} or more
are left out where {ENOUGH_ROUNDS} quieter ones remain; W: too few do, so look at CPU only.
Ratios: median of the rounds' ratios and, in brackets, their quartiles. n: how many rounds. "/ plain": against
the same server with the seal bypassed, "/ minimal": against the minimal plaintext server."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a run found out."""

    machine: Machine
    settings: dict[str, object]
    workloads: Sequence[Workload]
    results: Results
    growths: Sequence[Growth]

    def text(self) -> str:
        """Tables of at most 120 columns."""
        blocks = [_machine_text(self.machine, self.settings), _LEGEND]
        blocks += [self._table(view, workload) for view in _VIEWS for workload in self.workloads]
        blocks.append(_growth_text(self.growths))
        return "\n\n".join(block for block in blocks if block)

    def write_json(self, path: Path) -> None:
        """Every round of every cell, their summaries and ratios. Times in seconds, sizes in bytes."""
        document = {
            "machine": asdict(self.machine),
            "settings": self.settings,
            "workloads": [
                {
                    "name": workload.name,
                    "input_bytes": workload.input.nbytes,
                    "in_process": workload.in_process,
                }
                for workload in self.workloads
            ],
            "cells": [self._cell_json(cell) for cell in self.results.rounds],
            "memory": [{**asdict(growth), "payloads": growth.payloads} for growth in self.growths],
        }
        path.write_text(json.dumps(document, indent=1) + "\n")

    def _table(self, view: str, workload: Workload) -> str:
        lines = [self._line(cell) for cell in self.results.cells(view, workload.name)]
        if not lines:
            return ""
        model = f"{workload.name}: {_time(workload.in_process)} in process, {_size(workload.input.nbytes)} in"
        return "\n".join(
            [_VIEWS[view], model, _HEADER if view == "server" else _HEADER.rpartition(" p50")[0], *lines]
        )

    def _line(self, cell: Cell) -> str:
        summary = self.results.summary(cell)
        cpu = summary.server_cpu if cell.view == "server" else summary.generator_cpu
        limited = "G" if summary.generator_limited else " "
        columns = [
            f"{cell.concurrency:>3} {cell.variant:<8}",
            f"{_time(summary.p50):>8} {_time(summary.p99):>8}",
            f"{_rate(summary.rate):>8}{limited} {_time(cpu):>8}",
            f"{summary.generator_share:>4.0%} {summary.others:>5.0%}{'W' if summary.disturbed else ' '}",
        ]
        if cell.variant is not Variant.PLAIN:
            against = self.results.compare(cell, Variant.PLAIN)
            cpu_ratio = against.server_cpu if cell.view == "server" else against.generator_cpu
            columns += [f"{against.rounds:>2}", _ratio(against.p50), _ratio(against.rate), _ratio(cpu_ratio)]
        else:
            columns += ["  ", *[_BLANK] * 3]
        if cell.variant is not Variant.MINIMAL and cell.view == "server":
            columns.append(_ratio(self.results.compare(cell, Variant.MINIMAL).p50))
        return " ".join(columns).rstrip()

    def _cell_json(self, cell: Cell) -> dict[str, object]:
        present = {other.variant for other in self.results.cells(cell.view, cell.workload)}
        bases = present & {Variant.PLAIN, Variant.MINIMAL} - {cell.variant}
        summary = self.results.summary(cell)
        return {
            **asdict(cell),
            **asdict(summary),
            "generator_limited": summary.generator_limited,
            "ratios": {base: asdict(self.results.compare(cell, base)) for base in sorted(bases)},
            "rounds": [asdict(entry) for entry in self.results.rounds[cell]],
        }


_BLANK = " " * 16
_HEADER = (
    f"{'c':>3} {'variant':<8} {'p50':>8} {'p99':>8} {'req/s':>8}  {'CPU':>8} {'gen':>4} {'other':>5}   n "
    f"{'p50 / plain':<16} {'req/s / plain':<16} {'CPU / plain':<16} p50 / minimal"
)


def _machine_text(machine: Machine, settings: dict[str, object]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
    load = " → ".join(f"{value:.1f}" for value in machine.load)
    cores = f"server on core {machine.cores.server}, load generator on core {machine.cores.generator}"
    if not machine.cores.apart:
        cores += " TOO: these figures mean little"
    system = f"Linux {machine.kernel}, Python {machine.python}"
    return "\n".join(
        [
            f"{machine.started_at}; {machine.cpus} × {machine.cpu}; {system}",
            packages,
            f"{cores}; load average {load} (1 to 2 of it by the benchmark itself)",
            "; ".join(f"{name} {value}" for name, value in settings.items()),
        ]
    )


def _growth_text(growths: Sequence[Growth]) -> str:
    if not growths:
        return ""
    size = _size(growths[0].payload)
    lines = [f"Memory: the server's peak above idle for one request of {size}; the first, and further ones"]
    for growth in growths:
        peaks = f"{_size(growth.first):>9} {_size(growth.repeated):>9}"
        lines.append(f"    {growth.variant:<8} {peaks}   {growth.payloads:.2f} × the payload")
    return "\n".join(lines)


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.2f} [{ratio.low:.2f}–{ratio.high:.2f}]".ljust(16)


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 0.001 else f"{seconds * 1e3:.3g} ms"


def _size(size: int) -> str:
    return f"{size / 2**20:.3g} MiB" if size >= 1 << 20 else f"{size / 1024:.3g} KiB"
