"""build-for-sgx.md and confidential-vm.md: what they tell to type exists as they spell it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from confonnx.measure.enclave_conf import RANGES
from tests.support.build_tree import ROOT
from tests.support.commands import confonnx
from tests.support.sigstructs import make_sigstruct
from tests.support.snp_firmware import SECTIONS, firmware

PAGES = [ROOT / "docs/how-to" / name for name in ("build-for-sgx.md", "confidential-vm.md")]
_BLOCK = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SCRIPT = re.compile(r"docker/(?:server|client)/\w+\.sh")
_KERNEL_HASHES = (0x804000, 0x1000, 0x10)


def commands(page: Path) -> list[list[str]]:
    lines = "".join(_BLOCK.findall(page.read_text("utf-8"))).splitlines()
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_script_is_there_and_knows_the_variables_before_it(page: Path) -> None:
    seen = 0
    for words in commands(page):
        scripts = [word for word in words if _SCRIPT.fullmatch(word)]
        for script in scripts:
            text = (ROOT / script).read_text("utf-8")
            for variable in words[: words.index(script)]:
                assert f"{variable.partition('=')[0]}" in text, f"{script} does not know {variable}"
            seen += 1
    assert seen >= 3
    for script in _SCRIPT.findall(page.read_text("utf-8")):
        assert (ROOT / script).is_file()


def test_every_key_of_enclave_conf_is_explained() -> None:
    page = PAGES[0].read_text("utf-8")
    assert all(f"| `{key}` |" in page for key in RANGES)


def test_the_policies_are_made_as_the_pages_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    release = tmp_path / "dist/Release/bin"
    release.mkdir(parents=True)
    (release / "confonnx.sig").write_bytes(make_sigstruct())
    (tmp_path / "OVMF.amdsev.fd").write_bytes(firmware((*SECTIONS, _KERNEL_HASHES)))
    for name in ("vmlinuz", "initrd.img"):
        (tmp_path / name).write_bytes(b"boot")
    (tmp_path / "model.hash").write_text("aa" * 32)
    made = [words for page in PAGES for words in commands(page) if words[:2] == ["confonnx", "measure"]]
    assert [words[2] for words in made] == ["sgx", "snp"]
    for words in made:
        run = confonnx(*words[1 : words.index(">")])
        assert run.status == 0, run.err
        (tmp_path / words[-1]).write_text(run.out)
        assert confonnx("policy", "check", words[-1]).status == 0


def test_the_messages_in_the_table_are_ours() -> None:
    code = "".join(
        path.read_text("utf-8")
        for root in ("src/confonnx/measure", "docker")
        for path in sorted((ROOT / root).rglob("*"))
        if path.suffix in (".py", ".sh")
    )
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # literals over several lines
    table = PAGES[0].read_text("utf-8").partition("## When it does not work")[2]
    messages = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(messages) == 6
    for message in messages:
        for fixed in message.replace("/dev/sgx_enclave", "…").split("…"):
            assert fixed.strip() in code, fixed
