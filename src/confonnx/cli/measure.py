"""``confonnx measure``: what a server's evidence will show, before it runs.

``confonnx measure MODEL …`` is ``confonnx measure simulated MODEL …``, which alone needs the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import typer

from confonnx.cli import measure_hardware
from confonnx.cli.installed import server_is_installed

SIMULATED: Final = "simulated"
_NAMED: Final = (SIMULATED, "sgx", "snp", "-h", "--help")

measure = typer.Typer(
    help="Print what a server's evidence will show: the simulated measurement of a server with these options "
    "(`confonnx measure MODEL --option …`), or a policy for an SGX enclave or a confidential VM.",
)
measure.command("sgx")(measure_hardware.sgx)
measure.command("snp")(measure_hardware.snp)
if server_is_installed():
    from confonnx.cli.measure_simulated import simulated

    measure.command(SIMULATED)(simulated)


def spell_out(words: Sequence[str]) -> list[str]:
    """``words`` after ``measure``, with the TEE that may be left out."""
    return [*words] if words and words[0] in _NAMED else [SIMULATED, *words]
