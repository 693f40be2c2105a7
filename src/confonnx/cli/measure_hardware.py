"""``confonnx measure sgx`` and ``snp``: from what was built to a policy file that ``--policy`` accepts."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final

import typer

from confonnx.attestation.policy import DangerousAnyModel, ModelDigests, Policy, parse_model_hash
from confonnx.cli import connection as options
from confonnx.cli.connection import read_text
from confonnx.errors import ConfigurationError
from confonnx.measure.enclave_conf import parse_enclave_conf
from confonnx.measure.enclave_info import EnclaveInfo, policy_of
from confonnx.measure.manifest_rules import check_manifest
from confonnx.measure.sigstruct import parse_sigstruct
from confonnx.measure.snp import Guest, Vmm, launch_digest, snp_policy
from confonnx.models.documents import read_bytes

FIRMWARE_ALONE: Final = (
    "warning: without --kernel the digest is of the firmware alone: whatever disk it boots shows the same "
    "one. Accept it only together with something that says what was booted"
)


def sgx(
    signed: Annotated[
        Path, typer.Argument(metavar="SIG", help="The signed enclave: confonnx.sig of a build.")
    ],
    enclave_model_hash: options.EnclaveModelHash = None,
    enclave_model_hash_file: options.EnclaveModelHashFile = None,
    enclave_allow_debug: options.EnclaveAllowDebug = False,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Also check its manifest (confonnx.manifest.sgx), with --conf, for anything insecure."
        ),
    ] = None,
    conf: Annotated[
        Path | None, typer.Option(help="The enclave.conf that the manifest was made from.")
    ] = None,
) -> None:
    """Print the policy that accepts one SGX enclave and one model.

    It demands the enclave's MRENCLAVE, and MRSIGNER, ISVPRODID and ISVSVN too. The signature is checked.
    """
    if (manifest is None) != (conf is None):
        raise ConfigurationError("--manifest and --conf are given together")
    if manifest is not None and conf is not None:
        _check_manifest(manifest, conf)
    identity = parse_sigstruct(read_bytes(signed))
    info = EnclaveInfo(
        mrenclave=identity.mrenclave,
        mrsigner=identity.mrsigner,
        product_id=identity.product_id,
        security_version=identity.security_version,
        debug=identity.debug,
        model=_model_digest(enclave_model_hash, enclave_model_hash_file),
    )
    _print(policy_of(info, allow_debug=enclave_allow_debug, allow_simulated=False))


def snp(
    firmware: Annotated[Path, typer.Option("--ovmf", help="Firmware image of the guest (OVMF.fd).")],
    vcpus: Annotated[list[int], typer.Option(help="Processors of the guest; repeat it for several sizes.")],
    vcpu_type: Annotated[str, typer.Option(help="Processor model as QEMU names it, such as EPYC-Milan.")],
    kernel: Annotated[Path | None, typer.Option(help="Kernel that the firmware boots directly.")] = None,
    initrd: Annotated[Path | None, typer.Option(help="Its initial RAM disk.")] = None,
    command_line: Annotated[str | None, typer.Option("--append", help="Its command line.")] = None,
    guest_features: Annotated[
        str, typer.Option(metavar="HEX", help="SEV_FEATURES of the guest's processors.")
    ] = "0x1",
    vmm: Annotated[Vmm, typer.Option(help="What launches the guest.")] = Vmm.QEMU,
    enclave_model_hash: options.EnclaveModelHash = None,
    enclave_model_hash_file: options.EnclaveModelHashFile = None,
    dangerous_any_model: options.DangerousAnyModel = False,
) -> None:
    """Print the policy that accepts one SEV-SNP guest, by its launch digest, and one model."""
    digests = [
        launch_digest(
            Guest(
                firmware=firmware,
                vcpus=count,
                vcpu_type=vcpu_type,
                vmm=vmm,
                kernel=kernel,
                initrd=initrd,
                command_line=command_line,
                guest_features=_hex(guest_features),
            )
        )
        for count in vcpus
    ]
    models: ModelDigests | DangerousAnyModel = DangerousAnyModel()
    if not dangerous_any_model:
        models = ModelDigests((_model_digest(enclave_model_hash, enclave_model_hash_file),))
    elif enclave_model_hash is not None or enclave_model_hash_file is not None:
        raise ConfigurationError("give a model hash or --dangerous-any-model, not both")
    if kernel is None:
        typer.echo(FIRMWARE_ALONE, err=True)
    _print(snp_policy(digests, models))


def _check_manifest(manifest: Path, conf: Path) -> None:
    try:
        parsed = tomllib.loads(read_text(manifest, "--manifest"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"--manifest: {manifest} is not TOML: {error}") from error
    check_manifest(parsed, parse_enclave_conf(read_text(conf, "--conf"), source=str(conf)))


def _model_digest(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise ConfigurationError(
            "say which model the policy accepts, with --enclave-model-hash or --enclave-model-hash-file "
            "(`confonnx hash-model` prints the hash): one of them"
        )
    return parse_model_hash(
        text if text is not None else read_text(file or Path(), "--enclave-model-hash-file")
    )


def _hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        raise ConfigurationError(f"--guest-features takes a hexadecimal number, found {text!r}") from None


def _print(policy: Policy) -> None:
    typer.echo(policy.to_toml(), nl=False)
