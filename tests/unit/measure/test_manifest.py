"""The enclave's manifest: the same bytes for the same inputs, and a rule against every way to weaken it."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from confonnx.errors import ConfigurationError
from confonnx.measure.enclave_conf import parse_enclave_conf
from confonnx.measure.manifest import Paths, render_manifest
from confonnx.measure.manifest_rules import check_manifest, find_faults, size_bytes
from confonnx.measure.trusted_files import TrustedFile
from tests.support.enclave_confs import conf_text

TEMPLATE = (Path(__file__).parents[3] / "deploy/gramine/confonnx.manifest.template").read_text("utf-8")
CONF = parse_enclave_conf(conf_text())
PATHS = Paths(
    libos=Path("/usr/lib/x86_64-linux-gnu/gramine/libsysdb.so"),
    runtime=Path("/usr/lib/x86_64-linux-gnu/gramine/runtime/glibc"),
    python=Path("/usr/bin/python3.12"),
    stdlib=Path("/usr/lib/python3.12"),
    libraries=Path("/lib/x86_64-linux-gnu"),
    model=Path("/models/digits.onnx"),
)
FILES = tuple(
    TrustedFile(Path(path), f"{number:064x}")
    for number, path in enumerate(
        [
            "/app/config/server.toml",
            "/lib/x86_64-linux-gnu/libz.so.1",
            "/models/digits.onnx",
            "/opt/confonnx/confonnx/__init__.py",
            "/usr/bin/python3.12",
            "/usr/lib/python3.12/os.py",
            "/usr/lib/x86_64-linux-gnu/gramine/libsysdb.so",
            "/usr/lib/x86_64-linux-gnu/gramine/runtime/glibc/libc.so.6",
        ]
    )
)
Manifest = dict[str, Any]


def rendered(template: str = TEMPLATE) -> str:
    return render_manifest(template, CONF, PATHS, FILES)


@pytest.fixture
def manifest() -> Manifest:
    return tomllib.loads(rendered())


def test_two_generations_are_byte_identical() -> None:
    assert rendered() == rendered()


def test_enclave_conf_and_paths_are_in_it(manifest: Manifest) -> None:
    sgx = manifest["sgx"]
    assert sgx["debug"] is False
    assert (sgx["isvprodid"], sgx["isvsvn"], sgx["max_threads"]) == (1, 7, 32)
    assert sgx["enclave_size"] == "2048M"
    assert manifest["sys"]["stack"]["size"] == "2048K"
    assert manifest["libos"]["entrypoint"] == "/usr/bin/python3.12"
    argv = manifest["loader"]["argv"]
    assert argv[argv.index("--model-path") + 1] == "/models/digits.onnx"
    assert argv[-3:] == ["--tee", "sgx", "--require-tee"]
    assert len(sgx["trusted_files"]) == len(FILES)


def test_telemetry_is_off(manifest: Manifest) -> None:
    assert manifest["loader"]["env"]["ORT_DISABLE_TELEMETRY"] == "1"


def test_debug_is_debug() -> None:
    conf = parse_enclave_conf(conf_text(Debug="1"))
    assert tomllib.loads(render_manifest(TEMPLATE, conf, PATHS, FILES))["sgx"]["debug"] is True


def test_nothing_that_jinja_would_read_is_left_for_gramine_manifest() -> None:
    assert not [mark for mark in ("{{", "{%", "{#") if mark in rendered()]


def set_at(*keys: str | int, value: object) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        place: Any = manifest
        for key in keys[:-1]:
            place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
        place[keys[-1]] = value

    return change


def drop(*keys: str | int) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        place: Any = manifest
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


def append(*keys: str, value: object) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        place: Any = manifest
        for key in keys:
            place = place[key]
        place.append(value)

    return change


def without_file(path: str) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        files = manifest["sgx"]["trusted_files"]
        (entry,) = [file for file in files if file["uri"] == f"file:{path}"]
        files.remove(entry)

    return change


def argv(change: Callable[[list[str]], list[str]]) -> Callable[[Manifest], None]:
    def apply(manifest: Manifest) -> None:
        manifest["loader"]["argv"] = change(manifest["loader"]["argv"])

    return apply


ONE_FAULT = [
    # The host would choose arguments, environment or files.
    (
        set_at("loader", "insecure__use_cmdline_argv", value=True),
        "loader.insecure__use_cmdline_argv is not among",
    ),
    (set_at("loader", "insecure__use_host_env", value=True), "loader.insecure__use_host_env is not among"),
    (set_at("loader", "insecure__disable_aslr", value=False), "loader.insecure__disable_aslr is not among"),
    (set_at("loader", "argv_src_file", value="file:/a"), "loader.argv_src_file is not among"),
    (set_at("loader", "env_src_file", value="file:/a"), "loader.env_src_file is not among"),
    (set_at("fs", "insecure__keys", "k", value="00"), "fs.insecure__keys.k is not among"),
    (set_at("fs", "root", "uri", value="file:/"), "fs.root.uri is not among"),
    (set_at("sgx", "allowed_files", value=["file:/models/"]), "sgx.allowed_files is not among"),
    (set_at("sgx", "file_check_policy", value="allow_all_but_log"), "sgx.file_check_policy is not among"),
    (set_at("sgx", "seal_key", "flags_mask", value="0x0"), "sgx.seal_key.flags_mask is not among"),
    (set_at("sgx", "profile", "enable", value="all"), "sgx.profile.enable is not among"),
    (set_at("sys", "insecure__allow_eventfd", value=True), "sys.insecure__allow_eventfd is not among"),
    (set_at("loader", "env", "AUTH", value={"passthrough": True}), "loader.env.AUTH.passthrough: only fixed"),
    (set_at("loader", "env", "AUTH", value=7), "loader.env.AUTH: only fixed texts"),
    (set_at("loader", "env", "LD_PRELOAD", value="/tmp/x.so"), "loader.env.LD_PRELOAD is not allowed"),
    (set_at("loader", "env", "PYTHONSTARTUP", value="/tmp/x.py"), "loader.env.PYTHONSTARTUP is not allowed"),
    (set_at("loader", "env", "PYTHONHASHSEED", value="0"), "loader.env.PYTHONHASHSEED is not allowed"),
    (set_at("loader", "env", "CONFONNX_TEE", value="simulated"), "loader.env.CONFONNX_TEE is not allowed"),
    (set_at("sgx.debug", value=False), "'sgx.debug' is not among"),
    (set_at("loader", "env", "A.B", value="x"), "loader.env.'A.B': only fixed texts"),
    # Another program.
    (argv(lambda words: [*words[:-3], "--require-tee"]), "loader.argv: "),
    (argv(lambda words: words[:-1]), "loader.argv: "),
    (argv(lambda words: [word if word != "sgx" else "simulated" for word in words]), "loader.argv: "),
    (argv(lambda words: [word for word in words if word != "serve"]), "loader.argv: "),
    (set_at("loader", "argv", value="serve"), "loader.argv: "),
    (drop("loader", "argv"), "loader.argv is missing"),
    (set_at("libos", "entrypoint", value="python3"), "libos.entrypoint: 'python3' is not allowed"),
    (set_at("loader", "entrypoint", "uri", value="https://x"), "loader.entrypoint.uri: 'https://x' is not"),
    (set_at("loader", "entrypoint", "sha256", value="00"), "loader.entrypoint.sha256: '00' is not allowed"),
    (set_at("loader", "uid", value=0), "loader.uid: 0 is not allowed"),
    (set_at("loader", "gid", value=True), "loader.gid: True is not allowed"),
    # What it tells the host.
    (set_at("loader", "log_level", value="debug"), "loader.log_level: 'debug' is not allowed"),
    (set_at("loader", "log_file", value="/tmp/log"), "loader.log_file is not among"),
    (set_at("sgx", "enable_stats", value=True), "sgx.enable_stats: True is not allowed"),
    (set_at("sgx", "use_exinfo", value=True), "sgx.use_exinfo: True is not allowed"),
    # Not what enclave.conf says.
    (set_at("sgx", "debug", value=True), "sgx.debug: True is not allowed"),
    (set_at("sgx", "debug", value=0), "sgx.debug: 0 is not allowed"),
    (drop("sgx", "debug"), "sgx.debug is missing"),
    (set_at("sgx", "isvprodid", value=2), "sgx.isvprodid: 2 is not allowed"),
    (set_at("sgx", "isvsvn", value=6), "sgx.isvsvn: 6 is not allowed"),
    (set_at("sgx", "max_threads", value=64), "sgx.max_threads: 64 is not allowed"),
    (set_at("sgx", "enclave_size", value="4G"), "sgx.enclave_size: '4G' is not allowed"),
    (set_at("sgx", "enclave_size", value=2 << 30), "sgx.enclave_size: 2147483648 is not allowed"),
    (set_at("sys", "stack", "size", value="256K"), "sys.stack.size: '256K' is not allowed"),
    (set_at("sgx", "edmm_enable", value=True), "sgx.edmm_enable: True is not allowed"),
    (set_at("sgx", "remote_attestation", value="none"), "sgx.remote_attestation: 'none' is not allowed"),
    (drop("sgx", "remote_attestation"), "sgx.remote_attestation is missing"),
    (set_at("sgx", "cpu_features", "avx512", value=["required"]), "sgx.cpu_features.avx512: expected one of"),
    (set_at("sgx", "cpu_features", "avx512", value="maybe"), "sgx.cpu_features.avx512: expected one of"),
    (set_at("sys", "enable_sigterm_injection", value=False), "sys.enable_sigterm_injection: False is not"),
    # Files.
    (append("fs", "mounts", value={"path": "/etc", "uri": "file:/etc"}), "file:/etc holds no trusted file"),
    (
        append("fs", "mounts", value={"type": "encrypted", "path": "/s", "uri": "file:/s", "key_name": "x"}),
        "is neither a tmpfs nor a directory of trusted files",
    ),
    (
        append("fs", "mounts", value={"type": "untrusted_shm", "path": "/s", "uri": "dev:/s"}),
        "is neither a tmpfs",
    ),
    (append("fs", "mounts", value="file:/opt"), "fs.mounts: 'file:/opt' is neither"),
    (set_at("fs", "mounts", value={}), "fs.mounts is missing"),
    (
        append("sgx", "trusted_files", value="file:/models/"),
        "expected a file's uri and sha256, found 'file:/models/'",
    ),
    (append("sgx", "trusted_files", value={"uri": "file:/models/a"}), "expected a file's uri and sha256"),
    (
        append("sgx", "trusted_files", value={"uri": "file:/models/", "sha256": "00" * 32}),
        "expected a file's uri and sha256",
    ),
    (
        append("sgx", "trusted_files", value={"uri": "file:/models/a", "sha256": "00" * 31}),
        "expected a file's uri and sha256",
    ),
    (
        append("sgx", "trusted_files", value={"uri": "file:/models/digits.onnx", "sha256": "00" * 32}),
        "a file is listed twice",
    ),
    (
        append("sgx", "trusted_files", value={"uri": "file:/opt/confonnx/a.pyc", "sha256": "00" * 32}),
        "/opt/confonnx/a.pyc is bytecode",
    ),
    (
        append("sgx", "trusted_files", value={"uri": "file:/models/../etc/passwd", "sha256": "00" * 32}),
        "expected a file's uri and sha256",
    ),
    (append("fs", "mounts", value={"path": "/m", "uri": "file:/models/../etc"}), "is neither a tmpfs"),
    (
        append("sgx", "trusted_files", value={"uri": "file:/root/a", "sha256": "00" * 32}),
        "/root/a is in no mount; leave it out",
    ),
    (
        without_file("/app/config/server.toml"),
        "file:/app/config/server.toml runs or is read, and is not listed",
    ),
    (without_file("/models/digits.onnx"), "file:/models/digits.onnx runs or is read, and is not listed"),
    (without_file("/usr/bin/python3.12"), "file:/usr/bin/python3.12 runs or is read, and is not listed"),
    (without_file(str(PATHS.libos)), "libsysdb.so runs or is read, and is not listed"),
    (drop("sgx", "trusted_files"), "sgx.trusted_files is missing"),
]


@pytest.mark.parametrize(("change", "message"), ONE_FAULT, ids=[message[:60] for _, message in ONE_FAULT])
def test_one_change_each(change: Callable[[Manifest], None], message: str, manifest: Manifest) -> None:
    assert find_faults(manifest, CONF) == ()
    changed = copy.deepcopy(manifest)
    change(changed)
    assert any(message in fault for fault in find_faults(changed, CONF)), find_faults(changed, CONF)
    with pytest.raises(ConfigurationError, match="the manifest is not safe to sign"):
        check_manifest(changed, CONF)


def test_what_gramine_writes_out_is_accepted(manifest: Manifest) -> None:
    manifest["loader"]["entrypoint"]["sha256"] = "00" * 32
    manifest["sgx"] |= {"enable_stats": False, "use_exinfo": False, "enclave_size": "2G"}
    manifest["sgx"]["cpu_features"] = {"avx": "unspecified", "mpx": "disabled"}
    manifest["fs"]["mounts"][0]["type"] = "chroot"
    assert find_faults(manifest, CONF) == ()


def test_every_fault_is_told_at_once(manifest: Manifest) -> None:
    manifest["sgx"]["debug"] = True
    manifest["loader"]["insecure__use_host_env"] = True
    with pytest.raises(ConfigurationError) as caught:
        check_manifest(manifest, CONF)
    assert str(caught.value).count("\n  - ") == 2


def test_a_directory_of_a_model_with_external_data() -> None:
    paths = Paths(
        PATHS.libos, PATHS.runtime, PATHS.python, PATHS.stdlib, PATHS.libraries, Path("/models/big")
    )
    files = [file for file in FILES if file.path.parent != Path("/models")]
    inside = TrustedFile(Path("/models/big/model.onnx"), "00" * 32)
    assert "/models/big/model.onnx" in render_manifest(TEMPLATE, CONF, paths, [*files, inside])
    with pytest.raises(ConfigurationError, match="file:/models/big runs or is read"):
        render_manifest(TEMPLATE, CONF, paths, [*files, TrustedFile(Path("/models/bigger.onnx"), "00" * 32)])


@pytest.mark.parametrize("name", ['a".onnx', "a\n.onnx", "a\\.onnx", "{{x}}.onnx", "a%.onnx"])
def test_a_path_that_would_break_out_of_its_quotes(name: str) -> None:
    paths = Paths(
        PATHS.libos, PATHS.runtime, PATHS.python, PATHS.stdlib, PATHS.libraries, Path("/models") / name
    )
    with pytest.raises(ConfigurationError, match="cannot be written into a manifest"):
        render_manifest(TEMPLATE, CONF, paths, FILES)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (TEMPLATE + "\n# $colour", "placeholder: 'colour'"),
        (TEMPLATE + "\n# 5$", "placeholder: Invalid"),
        (TEMPLATE + "\nsgx.debug = ", "is not TOML"),
        (TEMPLATE.replace("sgx.debug = $debug", "sgx.debug = true"), "sgx.debug: True is not allowed"),
    ],
)
def test_a_template_that_was_spoilt(template: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        rendered(template)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2G", 2 << 30),
        ("64K", 65536),
        ("5M", 5 << 20),
        ("4096", 4096),
        ("1T", 0),
        ("-1", 0),
        ("", 0),
        (7, 0),
        ("0G", 0),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert size_bytes(text) == size
