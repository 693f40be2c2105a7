"""Two processes against one: ``confonnx serve --processes 2``, eight requests at a time.

``python -m benchmarks.processes [--quick] [--json FILE]``

Nothing is bound to a core: servers and load generator share the machine's. On one of two cores that takes a
part of what the second process could have, so beside the ratio that was measured stand the generator's
share of the machine, how busy the machine was, and the ratio that the server's CPU alone allows: 2 × (CPU
of a request with one process) / (CPU of a request with two). The last is what a machine with enough cores
gets, if processes wait for nothing else: then the machine was busy all the time. Where it was far from
that, others used it too, and the ratio that was measured says little.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Round
from benchmarks.generator import Outcome, Window, Worker, run_window, worker
from benchmarks.machine import choose_cores, describe_machine
from benchmarks.quantiles import Spread, paired_ratios, quantile, spread
from benchmarks.report import write_json
from benchmarks.rounds import say
from benchmarks.servers import Server, several_processes
from benchmarks.variants import Variant
from benchmarks.workloads import Workload, make_workloads

_CONCURRENCY = 8
_SECONDS = 1.0
_CASES = (
    ("tiny", Variant.SESSION_XWING),
    ("tiny", Variant.XWING),
    ("cnn", Variant.SESSION_XWING),
    ("transformer", Variant.SESSION_XWING),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two processes against one. Rates a second; CPU in seconds for a request.

    ``measured``: the ratio of the rates; ``by_cpu``: see the module. ``generator`` and ``busy``: shares of
    all cores' time in the windows of two processes.
    """

    workload: str
    variant: Variant
    rates: tuple[float, float]
    cpu: tuple[float, float]
    measured: Spread
    by_cpu: Spread
    generator: float
    busy: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the JSON."""
    given = _parse(arguments)
    machine = describe_machine(choose_cores())
    rounds = 1 if given.quick else 9
    found = []
    with TemporaryDirectory() as directory, worker(None) as load:
        for name, variant in _CASES[:3] if given.quick else _CASES:
            (workload,) = make_workloads([name], Path(directory))
            say(f"{name}, {variant}: one process and two")
            with several_processes(workload, 1) as one, several_processes(workload, 2) as two:
                pairs = _rounds(workload, variant, (one, two), load, rounds)
            found.append(compare(name, variant, pairs, cores=len(os.sched_getaffinity(0))))
    printed = f"{machine.started_at}; {machine.cpus} × {machine.cpu}; {rounds} rounds\n{text(found)}"
    print(printed)
    if given.json is not None:
        comparisons = [asdict(entry) for entry in found]
        document = {"text": printed, "machine": asdict(machine), "comparisons": comparisons}
        write_json(given.json, document)


def compare(
    workload: str, variant: Variant, pairs: Sequence[tuple[Outcome, Outcome]], *, cores: int
) -> Comparison:
    """From the outcomes of one process and of two, round by round."""
    ones, twos = [Round.of(one) for one, _ in pairs], [Round.of(two) for _, two in pairs]

    def medians(name: str) -> tuple[float, float]:
        one, two = (quantile([getattr(entry, name) for entry in entries], 0.5) for entries in (ones, twos))
        return one, two

    shares = [two.timings.generator_cpu / two.timings.elapsed / cores for _, two in pairs]
    busy = [
        (two.timings.server_cpu + two.timings.generator_cpu) / two.timings.elapsed / cores for _, two in pairs
    ]
    by_cpu = paired_ratios([entry.server_cpu for entry in ones], [entry.server_cpu for entry in twos])
    return Comparison(
        workload,
        variant,
        rates=medians("rate"),
        cpu=medians("server_cpu"),
        measured=spread(paired_ratios([entry.rate for entry in twos], [entry.rate for entry in ones])),
        by_cpu=spread([2 * ratio for ratio in by_cpu]),
        generator=quantile(shares, 0.5),
        busy=quantile(busy, 0.5),
    )


def text(found: Sequence[Comparison]) -> str:
    """One line for each."""
    head = f"{'':<28} {'req/s':>15}  {'CPU, µs':>13}  {'measured':<17} {'by CPU':<17} generator  busy"
    return "\n".join([head, *map(_line, found)])


def _line(row: Comparison) -> str:
    return (
        f"{row.workload + ', ' + row.variant:<28} {row.rates[0]:>7,.0f} {row.rates[1]:>7,.0f}  "
        f"{row.cpu[0] * 1e6:>6,.0f} {row.cpu[1] * 1e6:>6,.0f}  {_ratio(row.measured):<17} "
        f"{_ratio(row.by_cpu):<17} {row.generator:>9.0%} {row.busy:>5.0%}"
    )


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.2f} [{ratio.low:.2f}–{ratio.high:.2f}]"


def _rounds(
    workload: Workload, variant: Variant, servers: tuple[Server, Server], load: Worker, rounds: int
) -> list[tuple[Outcome, Outcome]]:
    def run(server: Server, count: int) -> Outcome:
        window = Window(variant, workload, server.port, server.pids, _CONCURRENCY, count)
        return load.run(run_window, window)

    trial = 4 * _CONCURRENCY + min(200, int(0.2 / workload.in_process))
    counts = [max(int(_SECONDS * Round.of(run(server, trial)).rate), 2 * _CONCURRENCY) for server in servers]
    order = random.Random(1)
    pairs = []
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        outcomes = {place: run(servers[place], counts[place]) for place in order.sample((0, 1), 2)}
        pairs.append((outcomes[0], outcomes[1]))
    return pairs


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.processes", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="one round: a look, no measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything, machine-readable")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
