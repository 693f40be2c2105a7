"""``confonnx policy``: what a policy file accepts, in words, and what changed between two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import DangerousAnyModel, Policy, describe, diff
from confonnx.cli.connection import read_text
from confonnx.errors import ConfigurationError

policy = typer.Typer(
    help="Say in words what an appraisal policy accepts, and what changed between two. To hold a server "
    "against one, use `confonnx verify --policy FILE`.",
    no_args_is_help=True,
)

PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help="Appraisal policy (TOML).")]


@policy.command()
def show(file: PolicyFile) -> None:
    """Show what a policy accepts: every check, and what it leaves open."""
    typer.echo("\n".join(describe(_read(file))))


@policy.command()
def check(file: PolicyFile) -> None:
    """Check that a file is a policy, and say what in it is dangerous."""
    dangers = [f"DANGER: {text}" for text in _dangers(_read(file))]
    typer.echo("\n".join([f"{file} is a policy.", *dangers]))


@policy.command("diff")
def changes(
    file: PolicyFile,
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="The later policy (TOML).")],
) -> None:
    """Say what changed from one policy to another."""
    lines = diff(_read(file), _read(other))
    typer.echo("\n".join(lines or ["no difference in what they accept"]))


def _read(path: Path) -> Policy:
    try:
        return Policy.from_toml(read_text(path, "policy"))
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _dangers(read: Policy) -> list[str]:
    dangers = []
    if isinstance(read.models, DangerousAnyModel):
        dangers.append("any model is accepted, so the host chooses which one answers")
    for server in read.accepted:
        if server.allow_debug:
            dangers.append(f"{server.title}: debug mode is accepted, in which the host can read everything")
        if server.tee is Tee.SIMULATED:
            dangers.append(f"{server.title}: simulated evidence is accepted, which anybody can make")
        if server.tee is Tee.TPM:
            dangers.append(f"{server.title}: a TPM encrypts no memory, so the host can read everything")
    return dangers
