"""The pages say what works: every block marked ``sh`` or ``python`` runs, in order, exactly as printed.

The README's server listens on its documented port. The blocks run in a network namespace of their own where
the system lets us make one, so that nothing else can be in their way; elsewhere the port must be free.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from confonnx.server.auth import parse_credentials
from tests.support.documents import blocks, run

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "src/confonnx/cli/digits/digits.onnx"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PORTS = (8888, 8082)


def test_the_readme(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(DIGITS.read_bytes())
    output = _run(ROOT / "README.md", tmp_path, needs_ports=True)
    made = {"model.hash", "enclave.hash", "info.json", "input.json", "output.json"}
    assert made <= {path.name for path in tmp_path.iterdir()}
    assert re.search(r"^\[[0-9](?: [0-9]){4}\]$", output, re.MULTILINE), "five digits, as Python prints them"
    assert "ACCEPTED" in output
    assert "NOT VERIFIED" in output
    languages = {block.language for block in blocks(ROOT / "README.md")}
    assert languages == {"sh", "python"}


def test_how_to_authenticate_clients(tmp_path: Path) -> None:
    _run(ROOT / "docs/how-to/authenticate-clients.md", tmp_path, needs_ports=False)
    (credential,) = parse_credentials((tmp_path / "credentials").read_text(), source="credentials")
    assert "radiology" in repr(credential)
    assert (tmp_path / "credentials").read_text().startswith("key:radiology:sha256:")


def test_no_page_has_blocks_that_nothing_runs() -> None:
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    names = [page.relative_to(ROOT).as_posix() for page in PAGES if blocks(page)]
    assert [name for name in names if name not in tests] == []
    assert {"README.md", "docs/how-to/authenticate-clients.md"} <= set(names)


@pytest.mark.parametrize(
    "block", ["```sh\ntrue\nfalse | cat\ntrue\n```\n", "```python\nraise SystemExit(1)\n```\n"]
)
def test_a_block_that_fails_is_noticed(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```\nfalse\n```\n\n{block}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        run(page)


def test_links_lead_somewhere() -> None:
    """Every relative link of every page, to a file that is there."""
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert broken == []
    assert len(PAGES) > 5


def _run(page: Path, directory: Path, *, needs_ports: bool) -> str:
    """What the blocks of a page print."""
    namespace = _own_network()
    if needs_ports and not namespace:
        _insist_on_free_ports()
    variables = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}",
        "OWN_NETWORK": "yes" if namespace else "",
    }
    done = subprocess.run(
        [*namespace, sys.executable, "-m", "tests.support.documents", str(page)],
        cwd=directory,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _own_network() -> Sequence[str]:
    """The words before a command that give it a network namespace; none where that is not possible."""
    for words in (("unshare", "--net"), ("unshare", "--map-root-user", "--net")):
        try:
            done = subprocess.run([*words, "true"], capture_output=True, timeout=20, check=False)
        except FileNotFoundError:
            return ()
        if done.returncode == 0:
            return words
    return ()


def _insist_on_free_ports() -> None:
    for port in PORTS:
        try:
            socket.create_server(("0.0.0.0", port)).close()
        except OSError as error:
            message = f"port {port} of the README is in use, and no network namespace can be made: {error}"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
