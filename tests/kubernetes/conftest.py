"""One Helm engine for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kubernetes.chart import Engine, need_tools


@pytest.fixture(scope="session")
def helm() -> Iterator[Engine]:
    """The real Helm engine, with the chart."""
    need_tools()
    engine = Engine()
    yield engine
    engine.close()
