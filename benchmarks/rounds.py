"""Rounds of windows: in each round every cell has one, in an order that a seed shuffles."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.calls import CallWindow, run_calls
from benchmarks.figures import Cell, Results
from benchmarks.generator import Outcome, Window, Worker, run_window
from benchmarks.limit import exchange_seconds, run_in_process
from benchmarks.load import BrokenOffError
from benchmarks.servers import Server
from benchmarks.variants import PEERS, Variant
from benchmarks.workloads import Workload

_MAX_COUNT = 20_000
_MAX_WINDOW_BYTES = 384 << 20
_MAX_TRIAL_BYTES = 64 << 20
_LEAST = 8
_LEAST_SLOW = 30  # requests of a model whose median must be known to a few percent
_SLOW = 0.001  # seconds


@dataclass(frozen=True, slots=True)
class Bench:
    """One workload, its servers, and who makes the load.

    A server that is ``None`` runs in process: ``limit`` is a process on the servers' core. ``window`` is how
    long a window should take, in seconds.
    """

    workload: Workload
    servers: Mapping[Variant, Server | None]
    generator: Worker
    limit: Worker
    order: random.Random
    results: Results
    window: float

    def measure(
        self, view: str, concurrencies: Sequence[int], variants: Sequence[Variant], *, rounds: int
    ) -> None:
        """Raises ``LoadError`` when a variant answers wrongly, or one of ours cuts a connection.

        Where a peer does so, its window is made once more.
        """
        cells = [
            Cell(view, self.workload.name, concurrency, variant)
            for concurrency in concurrencies
            for variant in variants
        ]
        # How many requests fill a window of each, by a trial that also warms everything up.
        counts = {cell: self._window_size(cell, self._run(cell, self._trial_size(cell))) for cell in cells}
        for number in range(rounds):
            say(f"{self.workload.name}, {view} view: round {number + 1} of {rounds}")
            for cell in self._shuffled(cells):
                self.results.add(cell, self._run(cell, counts[cell]))
            if view == "server":
                seconds = self.limit.run(exchange_seconds, None)
                self.results.exchanges.setdefault(self.workload.name, []).append(seconds)

    def _shuffled(self, cells: Sequence[Cell]) -> Iterator[Cell]:
        """The concurrencies in random order, and within each the variants: those that are compared stay
        neighbours.
        """
        concurrencies = sorted({cell.concurrency for cell in cells})
        for concurrency in self.order.sample(concurrencies, len(concurrencies)):
            same = [cell for cell in cells if cell.concurrency == concurrency]
            yield from self.order.sample(same, len(same))

    def _trial_size(self, cell: Cell) -> int:
        by_time = int(0.2 * self.window / self.workload.in_process)
        by_memory = _MAX_TRIAL_BYTES // self.workload.input_bytes
        return 2 * cell.concurrency + min(200, by_time, by_memory)

    def _window_size(self, cell: Cell, trial: Outcome) -> int:
        rate = len(trial.timings.latencies) / trial.timings.elapsed
        ceiling = min(_MAX_COUNT, _MAX_WINDOW_BYTES // self.workload.input_bytes)
        least = _LEAST_SLOW if self.workload.in_process > _SLOW else _LEAST
        return max(min(max(int(rate * self.window), least), ceiling), cell.concurrency, 3)

    def _run(self, cell: Cell, count: int) -> Outcome:
        try:
            return self._run_once(cell, count)
        except BrokenOffError as error:
            say(f"{cell.variant}, {cell.workload}, c = {cell.concurrency}: {error}")
            if cell.variant not in PEERS:
                raise
            return self._run_once(cell, count)

    def _run_once(self, cell: Cell, count: int) -> Outcome:
        server = self.servers[cell.variant]
        if server is None:
            pids = (self.limit.pid,)
            window = Window(cell.variant, self.workload, 0, pids, cell.concurrency, count)
            return self.limit.run(run_in_process, window)
        window = Window(cell.variant, self.workload, server.port, server.pids, cell.concurrency, count)
        if cell.view == "server":
            return self.generator.run(run_window, window)
        return self.generator.run(run_calls, CallWindow(window, server.measurement))


def say(progress: str) -> None:
    """One line on standard error."""
    print(progress, file=sys.stderr, flush=True)
