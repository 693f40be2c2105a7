"""What one large request adds to a server's memory at its peak, in a server that has not seen one before.

A server that has may keep what it allocated, and the next variant would look cheaper or dearer for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from benchmarks.generator import Window, Worker, run_single
from benchmarks.machine import Cores, resident_bytes
from benchmarks.servers import Server, confonnx_server, minimal_server
from benchmarks.variants import Variant
from benchmarks.workloads import Case, Workload

_SMALL_ELEMENTS = 16
_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Growth:
    """Bytes above what was resident before. ``payload``: the size of the input, and of the output."""

    variant: Variant
    first: int
    repeated: int
    payload: int

    @property
    def payloads(self) -> float:
        """The peak of a request, as a multiple of its payload."""
        return max(self.first, self.repeated) / self.payload


def measure_growth(
    workload: Workload, variants: Iterable[Variant], *, cores: Cores, generator: Worker
) -> list[Growth]:
    """The peaks of one request, and of further ones in a row, for each variant in a server of its own."""
    growths = []
    for variant in variants:
        with _server(variant, workload, cores) as server:
            window = Window(variant, workload, server.port, server.pids, concurrency=1, count=1)
            generator.run(run_single, replace(window, workload=_small(workload)))
            before = sum(map(resident_bytes, server.pids))
            peaks = [generator.run(run_single, window) - before for _ in range(1 + _REPEATS)]
        growths.append(Growth(variant, peaks[0], max(peaks[1:]), workload.input_bytes))
    return growths


def _server(variant: Variant, workload: Workload, cores: Cores) -> AbstractContextManager[Server]:
    return minimal_server(workload, cores) if variant is Variant.MINIMAL else confonnx_server(workload, cores)


def _small(workload: Workload) -> Workload:
    """The identity of a few elements: loads lazily what a first request loads."""
    (case,) = workload.cases
    return replace(workload, cases=(Case(case.input[:_SMALL_ELEMENTS], case.answer[:_SMALL_ELEMENTS]),))
