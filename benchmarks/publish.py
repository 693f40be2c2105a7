"""Writes what was measured into the documentation, between the marks that are there for it.

``python -m benchmarks.publish [--bench FOLDER] [--docs FOLDER]``; reads ``build/bench`` as ``goals`` does.
What was not measured stays as it is in the documents.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.goals import HEAD, Document, cells_of, judge_all
from benchmarks.variants import PEERS, Variant

_SHORT = (Variant.SESSION_XWING, Variant.XWING)
_DRAWING = "performance.svg"  # which plot.py makes
_MARK = re.compile(r"(<!-- bench:([a-z-]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.publish", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--bench", type=Path, default=Path("build/bench"), help="default: build/bench")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="default: docs")
    given = parser.parse_args(arguments)
    documents = {path.stem: json.loads(path.read_text()) for path in sorted(given.bench.glob("*.json"))}
    texts = dict(sections(documents))
    if "peers" in documents and (given.docs / _DRAWING).exists():
        texts["peers-short"] += f"\n\n![Requests a second, of each server]({_DRAWING})"
    for name in ("performance.md", "performance-tables.md"):
        path = given.docs / name
        path.write_text(fill(path.read_text(), texts))


def sections(documents: dict[str, Document]) -> Iterator[tuple[str, str]]:
    """What belongs between which marks."""
    if documents:
        yield "goals", "\n".join([HEAD, *map(str, judge_all(documents))])
    if "sealed" in documents:
        yield "sealed-short", sealed_short(documents["sealed"])
    if "peers" in documents:
        yield "peers-short", peers_short(documents["peers"])
    for name, document in documents.items():
        yield name, f"```\n{document['text']}\n```"


def fill(page: str, texts: dict[str, str]) -> str:
    """``page`` with the texts that there are between their marks."""

    def replaced(found: re.Match[str]) -> str:
        text = texts.get(found[2])
        return found[0] if text is None else f"{found[1]}{text}\n{found[3]}"

    return _MARK.sub(replaced, page)


def sealed_short(document: Document) -> str:
    """A session and plain Oblivious HTTP, both with X-Wing, against what is not sealed."""
    bases = (Variant.PLAIN, Variant.MINIMAL, Variant.IN_PROCESS)
    titles = " | ".join(f"p50, req/s / {base}" for base in bases)
    lines = [
        f"| model | c | | p50 | req/s | CPU | {titles} |",
        "|---|---|---|---|---|---|" + "---|" * len(bases),
    ]
    for workload in document["workloads"]:
        for variant in _SHORT:
            for cell in _by_concurrency(cells_of(document, workload["name"], variant)):
                columns = [
                    workload["name"],
                    str(cell["concurrency"]),
                    variant,
                    f"{cell['p50'] * 1e3:.3g} ms",
                    f"{cell['rate']:,.0f}" if cell["rate"] >= 100 else f"{cell['rate']:.3g}",
                    f"{cell['server_cpu'] * 1e3:.3g} ms",
                    *(_pair(cell, base) for base in bases),
                ]
                lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def peers_short(document: Document) -> str:
    """A session with X-Wing against every peer in the clear: ratios of p50 and of requests a second."""
    lines = [
        "| model | c | " + " | ".join(PEERS) + " |",
        "|---|---|" + "---|" * len(PEERS),
    ]
    for workload in document["workloads"]:
        for cell in _by_concurrency(cells_of(document, workload["name"], Variant.SESSION_XWING)):
            against = " | ".join(_pair(cell, peer) for peer in PEERS)
            lines.append(f"| {workload['name']} | {cell['concurrency']} | {against} |")
    return "\n".join(lines)


def _by_concurrency(cells: Sequence[Document]) -> list[Document]:
    return sorted(cells, key=lambda cell: int(cell["concurrency"]))


def _pair(cell: Document, base: Variant) -> str:
    if base not in cell["ratios"]:
        return "–"
    found = cell["ratios"][base]
    p50, rate = found["p50"]["median"], found["rate"]["median"]
    return f"{p50:.2f}, {rate:.2f}" if rate < 10 else f"{p50:.2f}, {rate:.0f}"


if __name__ == "__main__":
    main()
