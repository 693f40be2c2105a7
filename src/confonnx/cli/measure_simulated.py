"""``confonnx measure simulated``: the enclave hash of a server without a TEE, without starting it."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from confonnx.attestation.attest.simulated import measure_installation
from confonnx.cli.server_options import server_command
from confonnx.server.settings import Settings
from confonnx.server.settings_sources import load_settings


@server_command
def simulated(settings: Settings, warnings: tuple[str, ...]) -> None:
    """Print the hash that clients give as --enclave-hash for a server with these options.

    It covers the installed code, the libraries that handle plain text or keys, and the options that decide
    about security; not the model, which has its own hash (`confonnx hash-model`). This is the measurement of
    the simulated TEE.
    """
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(measure_installation(settings.measured()).hex())


def measure_server(options: Mapping[str, object]) -> bytes:
    """The measurement (32 bytes) of a server with these options, given by the names of their fields."""
    settings, _ = load_settings(options)
    return measure_installation(settings.measured())
