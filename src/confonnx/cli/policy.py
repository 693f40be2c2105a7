"""``confonnx policy``: what a policy file accepts, in words, and what changed between two."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import DangerousAnyModel, Policy, describe, diff
from confonnx.cli.connection import read_text
from confonnx.errors import ConfigurationError


class Action(StrEnum):
    """What to do with the files."""

    SHOW = "show"
    CHECK = "check"
    DIFF = "diff"


def policy(
    action: Annotated[
        Action,
        typer.Argument(
            help="`show`: what FILE accepts, in words. `check`: whether FILE is a policy, and what in it is "
            "dangerous. `diff`: what changed from FILE to OTHER."
        ),
    ],
    file: Annotated[Path, typer.Argument(help="Appraisal policy (TOML).")],
    other: Annotated[Path | None, typer.Argument(help="The later policy, for `diff`.")] = None,
) -> None:
    """Say in words what an appraisal policy accepts.

    To hold a server against a policy, use `confonnx verify --policy FILE`.
    """
    if (other is not None) != (action is Action.DIFF):
        raise ConfigurationError("`policy diff` takes two files, `policy show` and `policy check` one")
    first = _read(file)
    match action:
        case Action.SHOW:
            lines = describe(first)
        case Action.CHECK:
            lines = [f"{file} is a policy.", *(f"DANGER: {text}" for text in _dangers(first))]
        case Action.DIFF:
            assert other is not None
            lines = diff(first, _read(other)) or ["no difference in what they accept"]
    typer.echo("\n".join(lines))


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
