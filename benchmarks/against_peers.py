"""Sealed predictions by confonnx against predictions in the clear by other model servers.

``python -m benchmarks.against_peers [--quick] [--json FILE]``, after ``make bench-peers`` has made the peers'
environments.

All servers have one core, one inference thread, the same model files and the same inputs; each peer gets its
messages in the form that suits it best (``benchmarks/variants.py``). All run at the same time, and one is
asked at a time. Every answer is held, bit for bit, against what onnxruntime says in process.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Cell, Results
from benchmarks.generator import worker
from benchmarks.machine import Cores, choose_cores, describe_machine
from benchmarks.peers.processes import peer_server
from benchmarks.quantiles import Spread
from benchmarks.report import Column, Report
from benchmarks.rounds import Bench, say
from benchmarks.servers import Server, confonnx_server
from benchmarks.variants import OURS, PEERS, Form, Variant
from benchmarks.workloads import NAMES, Workload, make_workloads

MAX_JSON = 1 << 20
"""Larger inputs are not sent in JSON: 4 MiB of floats are 20 MB of digits, and take a peer seconds each."""

_METRICS = ("p50", "rate", "server_cpu")
_QUICK_MODELS = ("tiny",)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON."""
    given = _parse(arguments)
    window, rounds = (0.1, 1) if given.quick else (0.3, given.rounds)
    concurrencies = {1, 8} if given.quick else {1, 8, 32}
    cores = choose_cores()
    machine = describe_machine(cores)
    peers = [Variant(name) for name in given.peers]
    results, order = Results(), random.Random(given.seed)
    with (
        TemporaryDirectory() as directory,
        worker(cores.generator) as load,
        worker(cores.server) as limit,
    ):
        workloads = make_workloads(given.models or (_QUICK_MODELS if given.quick else NAMES), Path(directory))
        for workload in workloads:
            with ExitStack() as stack:
                servers = _start(stack, workload, peers, cores)
                bench = Bench(workload, servers, load, limit, order, results, window)
                chosen = [c for c in workload.concurrencies if c in concurrencies]
                bench.measure("server", chosen, tuple(servers), rounds=rounds)
    machine = replace(machine, load=(*machine.load, os.getloadavg()[0]))
    settings = {"window": f"{window} s", "rounds": rounds, "seed": given.seed}
    columns = [[Column(metric, peer) for peer in peers] for metric in _METRICS]
    report = Report(machine, settings, workloads, results, (), OURS, columns)
    print(report.text())
    print("\nCells in which a peer in the clear is ahead of a sealed variant, by the median:")
    print("\n".join(losses(results)) or "none")
    if given.json is not None:
        report.write_json(given.json)


def losses(results: Results) -> Iterator[str]:
    """A line for each sealed variant, peer and metric where the peer is ahead."""
    for cell in results.rounds:
        if cell.variant.kem is None:
            continue
        for peer in PEERS:
            if replace(cell, variant=peer) not in results.rounds:
                continue
            found = results.compare(cell, peer)
            if found.p50.median > 1:
                yield _loss(cell, peer, "p50", found.p50)
            if found.rate.median < 1:
                yield _loss(cell, peer, "req/s", found.rate)


def _loss(cell: Cell, peer: Variant, metric: str, ratio: Spread) -> str:
    return (
        f"{cell.workload}, c = {cell.concurrency}: {metric} of {cell.variant} is {ratio.median:.2f} "
        f"[{ratio.low:.2f}–{ratio.high:.2f}] × that of {peer}"
    )


def _start(
    stack: ExitStack, workload: Workload, peers: Sequence[Variant], cores: Cores
) -> dict[Variant, Server | None]:
    confonnx = stack.enter_context(confonnx_server(workload, cores))
    servers: dict[Variant, Server | None] = {Variant.IN_PROCESS: None, **dict.fromkeys(OURS, confonnx)}
    for peer in peers:
        if peer.form in (Form.JSON, Form.PLAIN_JSON) and workload.input_bytes > MAX_JSON:
            continue
        say(f"{workload.name}: starting {peer}")
        servers[peer] = stack.enter_context(peer_server(peer, workload, cores))
    return servers


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against_peers", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="one model, one round: a look, no measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every round, machine-readable")
    parser.add_argument("--models", nargs="+", choices=NAMES, help="only these")
    parser.add_argument(
        "--peers", nargs="+", choices=list(map(str, PEERS)), default=list(map(str, PEERS)), help="only these"
    )
    parser.add_argument("--rounds", type=int, default=7, help="for each model (default: 7)")
    parser.add_argument("--seed", type=int, default=1, help="of the order within rounds (default: 1)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
