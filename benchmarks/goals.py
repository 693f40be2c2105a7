"""Holds what the benchmarks found against the goals, and prints both as a table in Markdown.

``python -m benchmarks.goals [FOLDER]``; the folder, ``build/bench`` if none is named, has what ``--json``
of the benchmarks wrote: ``sealed.json``, ``peers.json``, ``processes.json``, ``overload.json``,
``soak.json``. What is not there is left out. Ends with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.variants import PEERS, Variant

Document = dict[str, Any]

_SESSIONS = (Variant.SESSION_X25519, Variant.SESSION_XWING)
_ALONE = (Variant.X25519, Variant.XWING)
HEAD = "| goal | of | measured | |\n|---|---|---|---|"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal, what of, and what was found, in words."""

    goal: str
    of: str
    measured: str
    met: bool

    def __str__(self) -> str:
        return f"| {self.goal} | {self.of} | {self.measured} | {'met' if self.met else '**missed**'} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, judge, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goals", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/bench"))
    folder = parser.parse_args(arguments).folder
    verdicts = list(judge_all({path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}))
    print("\n".join([HEAD, *map(str, verdicts)]))
    return 0 if all(verdict.met for verdict in verdicts) else 1


def judge_all(documents: dict[str, Document]) -> Iterator[Verdict]:
    """All that was measured; ``documents`` by the name of their benchmark."""
    for name, judge in _JUDGES.items():
        if name in documents:
            yield from judge(documents[name])


def judge_sealed(document: Document) -> Iterator[Verdict]:
    """``sealed_vs_plain``."""
    for variant in _SESSIONS:
        yield from _ratio(document, "tiny", 1, variant, "p50", Variant.PLAIN, at_most=1.25)
        yield from _ratio(document, "tiny", 1, variant, "p50", Variant.MINIMAL, at_most=1.6)
        yield from _ratio(document, "tiny", 8, variant, "rate", Variant.PLAIN, at_least=0.8)
        yield from _ratio(document, "tiny", 8, variant, "rate", Variant.MINIMAL, at_least=0.6)
        for workload in ("cnn", "transformer"):
            for concurrency in (1, 8, 32):
                yield from _ratio(
                    document, workload, concurrency, variant, "p50", Variant.IN_PROCESS, at_most=1.05
                )
                yield from _ratio(
                    document, workload, concurrency, variant, "rate", Variant.IN_PROCESS, at_least=0.95
                )
        yield from _ratio(document, "identity-16", 1, variant, "p50", Variant.PLAIN, at_most=1.35)
        for cell in cells_of(document, "tiny", variant):
            found = cell["overhead"]
            yield Verdict(
                "CPU beside onnxruntime ≤ 1.5 X25519 exchanges",
                _of(cell),
                _spread(found) + _unsealed(document, cell, lambda other: other["overhead"]),
                found["median"] <= 1.5,
            )
    for growth in document["memory"]:
        if growth["variant"] in _SESSIONS:
            found = growth["payloads"]
            yield Verdict("peak memory ≤ 2.5 × payload", growth["variant"], f"{found:.2f}", found <= 2.5)


def judge_peers(document: Document) -> Iterator[Verdict]:
    """``against_peers``."""
    workloads = [workload["name"] for workload in document["workloads"]]
    for peer in PEERS:
        cells = [
            cell
            for workload in workloads
            for variant in _SESSIONS
            for cell in cells_of(document, workload, variant)
            if peer in cell["ratios"]
        ]
        if cells:
            yield _ahead(cells, peer, "p50")
            yield _ahead(cells, peer, "rate")
    for variant in _ALONE:
        for concurrency in (1, 8, 32):
            yield from _ratio(
                document, "tiny", concurrency, variant, "server_cpu", Variant.TRITON, at_most=0.6
            )


def _ahead(cells: Sequence[Document], peer: Variant, metric: str) -> Verdict:
    behind = []
    for cell in cells:
        found = cell["ratios"][peer][metric]
        if found["median"] >= 1 if metric == "p50" else found["median"] <= 1:
            behind.append(f"{_of(cell)}: {_spread(found)}")
    measured = "; ".join([f"{len(cells) - len(behind)} of {len(cells)} cells", *behind])
    return Verdict(f"{_METRICS[metric]} ahead of {peer} in the clear", "sessions", measured, not behind)


def judge_processes(document: Document) -> Iterator[Verdict]:
    """``processes``: judged by CPU, since the load generator shares the cores."""
    for row in document["comparisons"]:
        found = row["by_cpu"]
        measured = (
            f"{_spread(found)} by CPU, {_spread(row['measured'])} measured beside the generator "
            f"({row['generator']:.0%})"
        )
        yield Verdict(
            "two processes ≥ 1.8 × one",
            f"{row['workload']}, {row['variant']}",
            measured,
            found["median"] >= 1.8,
        )


def judge_overload(document: Document) -> Iterator[Verdict]:
    """``overload``."""
    for row in document["scaling"][1:]:
        of = f"{row['connections']} connections, {row['busy']} busy"
        found = row["ratio"]
        yield Verdict("rate holds (≥ 0.9 × 8 connections)", of, _spread(found), found["median"] >= 0.9)
    for name, weather in document["weather"].items():
        storm, outcomes = weather["2.0"], weather["2.0"]["outcomes"]
        refused = 1 - outcomes.get("200", 0) / sum(outcomes.values())
        unsent = outcomes.get("-1", 0)
        measured = f"p99 {storm['p99'] * 1e3:,.0f} ms, {refused:.0%} refused, {unsent} found no connection"
        yield Verdict("2 × overload: bounded by refusals alone", name, measured, unsent == 0)
    for flood in document["floods"]:
        of = f"{flood['requests']} × {flood['payload'] >> 20} MiB, limit {flood['limit'] >> 20} MiB"
        share = flood["growth"] / flood["limit"]
        clean = set(flood["outcomes"]) <= {"200", "429", "503"}
        measured = f"{share:.2f} × the limit; " + ", ".join(f"{k}: {v}" for k, v in flood["outcomes"].items())
        yield Verdict(
            "memory ≤ 2.5 × limit of requests held, clean refusals", of, measured, clean and share <= 2.5
        )


def judge_soak(document: Document) -> Iterator[Verdict]:
    """``soak``."""
    slope = document["slope"]
    certain = (slope["per_second"] + 2 * slope["error"]) * slope["seconds"] / slope["mean"]
    minutes = document["samples"][-1][0] / 60
    yield Verdict(
        "memory flat", f"{minutes:.0f} minutes", f"second half: {certain:.2%} at most", certain < 0.02
    )


_JUDGES = {
    "sealed": judge_sealed,
    "peers": judge_peers,
    "processes": judge_processes,
    "overload": judge_overload,
    "soak": judge_soak,
}
_METRICS = {"p50": "p50", "rate": "req/s", "server_cpu": "CPU"}


def cells_of(document: Document, workload: str, variant: Variant) -> list[Document]:
    """The cells of the server's view."""
    return [
        cell
        for cell in document["cells"]
        if (cell["view"], cell["workload"], cell["variant"]) == ("server", workload, variant)
    ]


def _ratio(
    document: Document,
    workload: str,
    concurrency: int,
    variant: Variant,
    metric: str,
    base: Variant,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Iterator[Verdict]:
    """One verdict; none where the cell or what it is compared with was not measured."""
    for cell in cells_of(document, workload, variant):
        if cell["concurrency"] == concurrency and base in cell["ratios"]:
            found = cell["ratios"][base][metric]
            limit = f"≤ {at_most}" if at_most is not None else f"≥ {at_least}"
            met = (at_most is None or found["median"] <= at_most) and (
                at_least is None or found["median"] >= at_least
            )
            measured = _spread(found)
            if base is Variant.IN_PROCESS:
                measured += _unsealed(document, cell, lambda other: other["ratios"][base][metric])
            yield Verdict(f"{_METRICS[metric]} {limit} × {base}", _of(cell), measured, met)


def _unsealed(document: Document, cell: Document, figure: Callable[[Document], Document]) -> str:
    """The same figure of what seals nothing: what of it the seal is not to blame for."""
    found = [
        f"{variant} {figure(other)['median']:.2f}"
        for variant in (Variant.MINIMAL, Variant.PLAIN)
        for other in cells_of(document, cell["workload"], variant)
        if other["concurrency"] == cell["concurrency"]
    ]
    return f" ({', '.join(found)})" if found else ""


def _of(cell: Document) -> str:
    return f"{cell['workload']}, c = {cell['concurrency']}, {cell['variant']}"


def _spread(found: Document) -> str:
    return f"{found['median']:.2f} [{found['low']:.2f}–{found['high']:.2f}]"


if __name__ == "__main__":
    raise SystemExit(main())
