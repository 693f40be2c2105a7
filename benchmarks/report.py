"""The results for people (text) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.figures import DISTURBANCE_LIMIT, ENOUGH_ROUNDS, GENERATOR_LIMIT, Cell, Comparison, Results
from benchmarks.machine import Machine
from benchmarks.memory import Growth
from benchmarks.quantiles import Spread
from benchmarks.variants import Variant
from benchmarks.workloads import Workload

_VIEWS = {
    "server": "Server: requests made ready beforehand, raw sockets; CPU of the server",
    "client": "Client: confonnx.Client (c = 1) and AsyncClient against a plain client; CPU of the client",
}
_LEGEND = f"""\
c: requests at a time. req/s: median of the rounds. CPU: user and system time for one request. peak: the
server's largest resident set; the sum where it has several processes.
gen: share of its core that the load generator used; G: {GENERATOR_LIMIT:.0%} or more, it was the limit.
other: share of one of the two cores that other processes used. Rounds with {DISTURBANCE_LIMIT:.0%} or more
are left out where {ENOUGH_ROUNDS} quieter ones remain; W: too few do, so look at CPU only.
Ratios: median of the rounds' ratios and, in brackets, their quartiles. n: how many rounds, at least.
"/ plain": against the same server with the seal bypassed, "/ minimal": against the minimal plaintext server,
"/ in process": against onnxruntime with nothing around it, its callers in a queue."""
_METRICS = {"p50": "p50", "rate": "req/s", "server_cpu": "CPU", "generator_cpu": "CPU"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ratios: ``metric`` (of ``Comparison``) against variant ``base``."""

    metric: str
    base: Variant

    @property
    def title(self) -> str:
        """What stands over it."""
        return f"{_METRICS[self.metric]} / {self.base}"

    def of(self, comparison: Comparison) -> Spread:
        """The ratio."""
        found: Spread | None = getattr(comparison, self.metric)
        assert found is not None  # clients are not compared with what has none
        return found


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a run found out.

    ``rows`` have lines in the tables of ratios. ``columns``: those of each such table in the server's view;
    in the client's, all is against the plain client.
    """

    machine: Machine
    settings: dict[str, object]
    workloads: Sequence[Workload]
    results: Results
    growths: Sequence[Growth]
    rows: Sequence[Variant]
    columns: Sequence[Sequence[Column]]

    def text(self) -> str:
        """Tables of at most 140 columns."""
        blocks = [_machine_text(self.machine, self.settings), _LEGEND]
        for view in _VIEWS:
            for workload in self.workloads:
                cells = list(self.results.cells(view, workload.name))
                if cells:
                    blocks.append(self._figures(view, workload, cells))
                    blocks += [self._ratios(columns, cells) for columns in self._columns(view)]
        blocks += [self._overhead_text(), _growth_text(self.growths)]
        return "\n\n".join(block for block in blocks if block)

    def write_json(self, path: Path) -> None:
        """Every round of every cell, their summaries and ratios. Times in seconds, sizes in bytes."""
        document = {
            "text": self.text(),
            "machine": asdict(self.machine),
            "settings": self.settings,
            "workloads": [
                {
                    "name": workload.name,
                    "input_bytes": workload.input_bytes,
                    "in_process": workload.in_process,
                }
                for workload in self.workloads
            ],
            "cells": [self._cell_json(cell) for cell in self.results.rounds],
            "exchanges": self.results.exchanges,
            "memory": [{**asdict(growth), "payloads": growth.payloads} for growth in self.growths],
        }
        write_json(path, document)

    def _columns(self, view: str) -> Sequence[Sequence[Column]]:
        if view == "server":
            return self.columns
        return [[Column(metric, Variant.PLAIN) for metric in ("p50", "rate", "generator_cpu")]]

    def _figures(self, view: str, workload: Workload, cells: Sequence[Cell]) -> str:
        model = f"{workload.name}: {_time(workload.in_process)} in process, {_size(workload.input_bytes)} in"
        return "\n".join([_VIEWS[view], model, _HEADER, *map(self._line, cells)])

    def _line(self, cell: Cell) -> str:
        summary = self.results.summary(cell)
        cpu = summary.server_cpu if cell.view == "server" else summary.generator_cpu
        limited = "G" if summary.generator_limited else " "
        columns = [
            f"{cell.concurrency:>3} {cell.variant:<14}",
            f"{_time(summary.p50):>8} {_time(summary.p99):>8}",
            f"{_rate(summary.rate):>8}{limited} {_time(cpu):>8} {_size(summary.peak):>9}",
            f"{summary.generator_share:>4.0%} {summary.others:>5.0%}{'W' if summary.disturbed else ' '}",
        ]
        return " ".join(columns).rstrip()

    def _ratios(self, columns: Sequence[Column], cells: Sequence[Cell]) -> str:
        present = {cell.variant for cell in cells}
        shown = [column for column in columns if column.base in present]
        rows = [cell for cell in cells if cell.variant in self.rows]
        if not shown or not rows:
            return ""
        width = max(_RATIO, *(len(column.title) for column in shown))
        header = " ".join(f"{column.title:<{width}}" for column in shown)
        lines = [f"{'c':>3} {'variant':<14}  n {header}".rstrip()]
        lines += [self._ratio_line(cell, shown, width) for cell in rows]
        return "\n".join(lines)

    def _ratio_line(self, cell: Cell, columns: Sequence[Column], width: int) -> str:
        found = {
            column: self.results.compare(cell, column.base)
            for column in columns
            if replace(cell, variant=column.base) in self.results.rounds and column.base is not cell.variant
        }
        rounds = min((comparison.rounds for comparison in found.values()), default=0)
        texts = [
            f"{_ratio(column.of(found[column])) if column in found else '':<{width}}" for column in columns
        ]
        return f"{cell.concurrency:>3} {cell.variant:<14} {rounds or '':>2} {' '.join(texts)}".rstrip()

    def _overhead_text(self) -> str:
        """What a request costs beside onnxruntime, where neither that nor copies drown it."""
        lines = []
        for workload in self.workloads:
            exchanges = self.results.exchanges.get(workload.name)
            if exchanges is None or workload.input_bytes > _SMALL:
                continue
            unit = sorted(exchanges)[len(exchanges) // 2]
            lines.append(
                f"Server CPU of a request beside onnxruntime, in X25519 exchanges ({_time(unit)} each): "
                f"{workload.name}"
            )
            for cell in self.results.cells("server", workload.name):
                alone = replace(cell, variant=Variant.IN_PROCESS)
                if cell.variant is not Variant.IN_PROCESS and alone in self.results.rounds:
                    spread = self.results.overhead(cell)
                    lines.append(f"{cell.concurrency:>3} {cell.variant:<14} {_ratio(spread)}")
        return "\n".join(lines)

    def _overhead_json(self, cell: Cell) -> dict[str, object] | None:
        measured = replace(cell, variant=Variant.IN_PROCESS) in self.results.rounds
        return asdict(self.results.overhead(cell)) if measured else None

    def _cell_json(self, cell: Cell) -> dict[str, object]:
        bases = sorted({other.variant for other in self.results.cells(cell.view, cell.workload)})
        summary = self.results.summary(cell)
        return {
            **asdict(cell),
            **asdict(summary),
            "generator_limited": summary.generator_limited,
            "overhead": self._overhead_json(cell),
            "ratios": {
                base: asdict(self.results.compare(cell, base))
                for base in bases
                if base is not cell.variant and replace(cell, variant=base) in self.results.rounds
            },
            "rounds": [asdict(entry) for entry in self.results.rounds[cell]],
        }


_SMALL = 64 << 10
_RATIO = 16
_HEADER = f"{'c':>3} {'variant':<14} {'p50':>8} {'p99':>8} {'req/s':>8}  {'CPU':>8} {'peak':>9}  gen other"


def write_json(path: Path, document: object) -> None:
    """``document`` as JSON, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


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
        lines.append(f"    {growth.variant:<14} {peaks}   {growth.payloads:.2f} × the payload")
    return "\n".join(lines)


def _ratio(ratio: Spread) -> str:
    return f"{_number(ratio.median)} [{_number(ratio.low)}–{_number(ratio.high)}]"


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e6:.0f} µs" if seconds < 0.001 else f"{seconds * 1e3:.3g} ms"


def _size(size: int) -> str:
    return f"{size / 2**20:.3g} MiB" if size >= 1 << 20 else f"{size / 1024:.3g} KiB"
