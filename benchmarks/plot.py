"""Draws what ``against_peers --json`` wrote: requests a second of each server, by model and concurrency.

``build/peers/plot/bin/python -m benchmarks.plot FILE.json DRAWING.svg``. Runs in an environment of its own,
with matplotlib.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot

_COLOURS = {
    "session X-Wing": "#0b5d8f",
    "session X25519": "#2f8fc4",
    "X-Wing": "#7cbfe3",
    "X25519": "#b9def2",
    "FastAPI": "#f2a65a",
    "Triton py": "#d9773f",
    "MLServer": "#b5651d",
    "KServe": "#8c4a14",
    "BentoML": "#5f3310",
}
"""Sealed: blue; in the clear: brown."""

_LOGARITHMIC = 10
"""Where rates differ by a larger factor, the axis is logarithmic, from a power of ten on; else from 0."""

_COLUMNS = 3
_WIDTH = 0.85  # of a group of bars


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__.split("\n\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("drawing", type=Path, help="SVG or PNG, by its name")
    given = parser.parse_args(arguments)
    draw(json.loads(given.results.read_text()), given.drawing)


def draw(document: dict[str, Any], path: Path) -> None:
    """One panel for each model."""
    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 8, "svg.hashsalt": "confonnx", "svg.fonttype": "none"})
    workloads = [workload["name"] for workload in document["workloads"]]
    rows = -(-len(workloads) // _COLUMNS)
    figure, axes = pyplot.subplots(rows, _COLUMNS, figsize=(11, 2.9 * rows), squeeze=False)
    for axis, name in zip(axes.flat, workloads, strict=False):
        _panel(axis, name, [cell for cell in document["cells"] if cell["workload"] == name])
    for axis in list(axes.flat)[len(workloads) :]:
        axis.set_visible(False)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in _COLOURS.values()]
    figure.legend(handles, _COLOURS, loc="lower center", ncols=len(_COLOURS), frameon=False)
    figure.suptitle("Requests a second on one core. Blue: confonnx, sealed. Brown: others, in the clear")
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _panel(axis: Any, name: str, cells: Sequence[dict[str, Any]]) -> None:
    concurrencies = sorted({cell["concurrency"] for cell in cells})
    for place, variant in enumerate(_COLOURS):
        rates = {cell["concurrency"]: cell["rate"] for cell in cells if cell["variant"] == variant}
        at = [
            group + _WIDTH * ((place + 0.5) / len(_COLOURS) - 0.5)
            for group, concurrency in enumerate(concurrencies)
            if concurrency in rates
        ]
        heights = [rates[concurrency] for concurrency in concurrencies if concurrency in rates]
        axis.bar(at, heights, width=_WIDTH / len(_COLOURS), color=_COLOURS[variant])
    shown = [cell["rate"] for cell in cells if cell["variant"] in _COLOURS]
    if max(shown) > _LOGARITHMIC * min(shown):
        axis.set_yscale("log")
        axis.set_ylim(bottom=10 ** math.floor(math.log10(min(shown))))
    axis.set_title(f"{name} (logarithmic)" if axis.get_yscale() == "log" else name)
    axis.set_xticks(range(len(concurrencies)), [f"c = {concurrency}" for concurrency in concurrencies])
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
