"""From windows of load to figures: rounds, their summaries, and ratios between variants of the same round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from benchmarks.generator import Outcome
from benchmarks.quantiles import Spread, paired_ratios, quantile, spread
from benchmarks.variants import Variant

GENERATOR_LIMIT = 0.9
"""From this share of its core on, the load generator was what limited a window."""

DISTURBANCE_LIMIT = 0.1
"""A round in which others used this share of one of the two cores says little about times."""

ENOUGH_ROUNDS = 3
"""So many undisturbed rounds, and the disturbed ones are left out."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the table. ``view`` is ``server`` or ``client``."""

    view: str
    workload: str
    concurrency: int
    variant: Variant


@dataclass(frozen=True, slots=True)
class Round:
    """One window of a cell. Seconds, requests a second, shares of the window's time from 0 up, bytes.

    ``server_cpu`` and ``generator_cpu`` are for one request. ``others`` is what they
    used of one of the cores.
    """

    requests: int
    p50: float
    p99: float
    rate: float
    server_cpu: float
    generator_cpu: float
    generator_share: float
    others: float
    peak: int

    @classmethod
    def of(cls, outcome: Outcome) -> Round:
        """The figures of a window."""
        timings = outcome.timings
        requests = len(timings.latencies)
        return cls(
            requests=requests,
            p50=quantile(timings.latencies, 0.5),
            p99=quantile(timings.latencies, 0.99),
            rate=requests / timings.elapsed,
            server_cpu=timings.server_cpu / requests,
            generator_cpu=timings.generator_cpu / requests,
            generator_share=timings.generator_cpu / timings.elapsed,
            others=timings.others,
            peak=outcome.peak,
        )

    @property
    def disturbed(self) -> bool:
        """Whether others used the two cores so much that times say little."""
        return self.others >= DISTURBANCE_LIMIT


@dataclass(frozen=True, slots=True)
class Summary:
    """A cell over its rounds: quantiles of all latencies, medians of the rest, the largest peak."""

    requests: int
    p50: float
    p99: float
    rate: float
    server_cpu: float
    generator_cpu: float
    generator_share: float
    others: float
    peak: int

    @property
    def generator_limited(self) -> bool:
        """Whether a faster generator would have shown other figures."""
        return self.generator_share >= GENERATOR_LIMIT

    @property
    def disturbed(self) -> bool:
        """Whether it is made of disturbed rounds, for want of others."""
        return self.others >= DISTURBANCE_LIMIT


@dataclass(frozen=True, slots=True)
class Comparison:
    """A cell against another variant: the spread, over ``rounds`` rounds, of the ratio of their figures.

    ``generator_cpu`` is None where the other one had no generator.
    """

    rounds: int
    p50: Spread
    p99: Spread
    rate: Spread
    server_cpu: Spread
    generator_cpu: Spread | None


@dataclass(slots=True)
class Results:
    """What was measured so far. Mutable: it grows window by window.

    ``exchanges``: CPU seconds of one X25519 exchange, for each workload and round of the server's view.
    """

    rounds: dict[Cell, list[Round]] = field(default_factory=dict)
    exchanges: dict[str, list[float]] = field(default_factory=dict)
    _latencies: dict[Cell, list[npt.NDArray[np.float64]]] = field(default_factory=dict)

    def add(self, cell: Cell, outcome: Outcome) -> None:
        """One more round of ``cell``."""
        self.rounds.setdefault(cell, []).append(Round.of(outcome))
        self._latencies.setdefault(cell, []).append(outcome.timings.latencies)

    def cells(self, view: str, workload: str) -> Iterator[Cell]:
        """The cells of one table, by concurrency and then as ``Variant`` has them."""
        order = list(Variant)
        cells = [cell for cell in self.rounds if (cell.view, cell.workload) == (view, workload)]
        yield from sorted(cells, key=lambda cell: (cell.concurrency, order.index(cell.variant)))

    def summary(self, cell: Cell) -> Summary:
        """All undisturbed rounds of ``cell`` in one. ``KeyError`` without any round."""
        every = self.rounds[cell]
        chosen = _undisturbed(range(len(every)), every)
        rounds = [every[number] for number in chosen]
        latencies = np.concatenate([self._latencies[cell][number] for number in chosen])

        def median(name: str) -> float:
            return quantile(_column(rounds, name), 0.5)

        return Summary(
            requests=len(latencies),
            p50=quantile(latencies, 0.5),
            p99=quantile(latencies, 0.99),
            rate=median("rate"),
            server_cpu=median("server_cpu"),
            generator_cpu=median("generator_cpu"),
            generator_share=median("generator_share"),
            others=median("others"),
            peak=max(entry.peak for entry in every),
        )

    def compare(self, cell: Cell, base: Variant) -> Comparison:
        """``cell`` against the same cell of variant ``base``, over the rounds in which neither was disturbed.

        ``KeyError`` without rounds of both, ``ValueError`` when they do not pair up.
        """
        own = self.rounds[cell]
        others = self.rounds[Cell(cell.view, cell.workload, cell.concurrency, base)]
        chosen = _undisturbed(range(len(own)), own, others)

        def ratio(name: str) -> Spread:
            ratios = paired_ratios(_column(own, name), _column(others, name))
            return spread([ratios[number] for number in chosen])

        return Comparison(
            rounds=len(chosen),
            p50=ratio("p50"),
            p99=ratio("p99"),
            rate=ratio("rate"),
            server_cpu=ratio("server_cpu"),
            generator_cpu=None if base is Variant.IN_PROCESS else ratio("generator_cpu"),
        )

    def overhead(self, cell: Cell) -> Spread:
        """The server's CPU for a request of ``cell`` beside onnxruntime's, in X25519 exchanges of the same
        rounds.

        ``KeyError`` where the inference was not measured in process.
        """
        own = self.rounds[cell]
        alone = self.rounds[replace(cell, variant=Variant.IN_PROCESS)]
        unit = self.exchanges[cell.workload]
        return spread(
            [
                (own[number].server_cpu - alone[number].server_cpu) / unit[number]
                for number in _undisturbed(range(len(own)), own, alone)
            ]
        )


def _undisturbed(numbers: Sequence[int], *columns: Sequence[Round]) -> Sequence[int]:
    """Those of the rounds' ``numbers`` that nobody disturbed; all, if too few of them remain."""
    quiet = [number for number in numbers if not any(column[number].disturbed for column in columns)]
    return quiet if len(quiet) >= ENOUGH_ROUNDS else numbers


def _column(rounds: Sequence[Round], name: str) -> list[float]:
    return [float(getattr(entry, name)) for entry in rounds]
