"""A regression guard: small requests take no more steps of the interpreter than they did.

Whoever makes a request dearer on purpose raises the bound in the same commit; whoever makes it cheaper lowers
it, for a bound far above what is needed guards nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# What was counted with CPython 3.11, on 24 November 2026.
COUNTED = {
    "server, session": {"instructions": 2778, "calls": 117},
    "server, alone": {"instructions": 9073, "calls": 351},
    "client, session": {"instructions": 3490, "calls": 133},
}
# Other versions have other instructions.
TOLERANCE = 0.05 if sys.version_info[:2] == (3, 11) else 0.4


@pytest.fixture(name="counts", scope="module")
def counts_fixture() -> dict[str, dict[str, int]]:
    """Counted in a process of its own, so that neither coverage nor another test counts along."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.performance.steps"], capture_output=True, text=True, check=True
    )
    counts: dict[str, dict[str, int]] = json.loads(done.stdout)
    return counts


@pytest.mark.parametrize("what", ["instructions", "calls"])
@pytest.mark.parametrize("request_kind", list(COUNTED))
def test_a_small_request_takes_no_more_steps(
    counts: dict[str, dict[str, int]], request_kind: str, what: str
) -> None:
    counted, now = COUNTED[request_kind][what], counts[request_kind][what]
    assert now <= counted * (1 + TOLERANCE), f"{request_kind}: {now} {what}, were {counted}"
    assert now >= counted * (1 - 2 * TOLERANCE), f"{request_kind}: only {now} {what} now: lower the bound"


def test_a_session_is_worth_its_memory(counts: dict[str, dict[str, int]]) -> None:
    """What a session spares is most of a request's steps, whatever the version."""
    session, alone = counts["server, session"], counts["server, alone"]
    assert session["instructions"] < alone["instructions"] / 2
