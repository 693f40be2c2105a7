"""What was measured comes to stand between the marks, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.publish import fill, main, peers_short, sealed_short
from benchmarks.variants import PEERS

DOCS = Path(__file__).parents[3] / "docs"

PAGE = "a\n<!-- bench:soak -->\nold\n<!-- /bench -->\nb\n<!-- bench:peers -->\nkept\n<!-- /bench -->\n"


def cell(concurrency: int, variant: str, **ratios: tuple[float, float]) -> dict[str, object]:
    return {
        "view": "server",
        "workload": "tiny",
        "concurrency": concurrency,
        "variant": variant,
        "p50": 0.0001,
        "rate": 7654.3,
        "server_cpu": 0.00005,
        "ratios": {
            base: {"p50": {"median": p50}, "rate": {"median": rate}} for base, (p50, rate) in ratios.items()
        },
    }


def test_a_text_replaces_what_was_between_its_marks() -> None:
    assert fill(PAGE, {"soak": "new"}) == PAGE.replace("old", "new")
    assert fill(fill(PAGE, {"soak": "new"}), {"soak": "newer"}) == PAGE.replace("old", "newer")


def test_the_short_tables_have_a_row_for_each_cell() -> None:
    cells = [
        cell(8, "session X-Wing", plain=(1.1, 0.9), FastAPI=(0.5, 12.3)),
        cell(1, "session X-Wing", plain=(1.2, 0.8), FastAPI=(1.5, 0.7)),
        cell(1, "minimal", plain=(0.5, 2.0)),
    ]
    document = {"workloads": [{"name": "tiny"}], "cells": cells}
    assert sealed_short(document).splitlines()[2:] == [
        "| tiny | 1 | session X-Wing | 0.1 ms | 7,654 | 0.05 ms | 1.20, 0.80 | – | – |",
        "| tiny | 8 | session X-Wing | 0.1 ms | 7,654 | 0.05 ms | 1.10, 0.90 | – | – |",
    ]
    others = " | –" * (len(PEERS) - 1)
    assert peers_short(document).splitlines()[2:] == [
        f"| tiny | 1 | 1.50, 0.70{others} |",
        f"| tiny | 8 | 0.50, 12{others} |",
    ]


def test_the_documents_have_marks_for_everything(tmp_path: Path) -> None:
    bench, docs = tmp_path / "bench", tmp_path / "docs"
    bench.mkdir()
    docs.mkdir()
    for name in ("performance.md", "performance-tables.md"):
        (docs / name).write_text((DOCS / name).read_text())
    measured: dict[str, dict[str, object]] = {
        "sealed": {"workloads": [], "cells": [], "memory": []},
        "peers": {"workloads": [], "cells": []},
        "processes": {"comparisons": []},
        "overload": {"scaling": [], "weather": {}, "floods": []},
        "soak": {
            "slope": {"per_second": 0.0, "error": 0.0, "mean": 1.0, "seconds": 1.0},
            "samples": [[60.0, 1]],
        },
    }
    for name, document in measured.items():
        (bench / f"{name}.json").write_text(json.dumps({"text": f"text of {name}", **document}))
    (docs / "performance.svg").write_text("<svg/>")
    main(["--bench", str(bench), "--docs", str(docs)])
    pages = "".join((docs / name).read_text() for name in ("performance.md", "performance-tables.md"))
    for name in measured:
        assert f"<!-- bench:{name} -->\n```\ntext of {name}\n```\n<!-- /bench -->" in pages
    assert "(performance.svg)" in pages
    for name in ("goals", "sealed-short", "peers-short"):
        assert f"<!-- bench:{name} -->\n|" in pages


@pytest.mark.parametrize("name", ["performance.md", "performance-tables.md"])
def test_marks_come_in_pairs(name: str) -> None:
    page = (DOCS / name).read_text()
    assert page.count("<!-- bench:") == page.count("<!-- /bench -->") > 0
