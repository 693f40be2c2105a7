"""The file of hashes, and what is checked against it."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path

import pytest

from confonnx.errors import AuthenticationError, ConfigurationError, OverloadedError
from confonnx.server import auth
from confonnx.server.auth import Authenticator, Password, hash_credential, load_credentials, parse_credentials

KEY = "0123456789abcdef"
KEY_LINE = hash_credential("label", KEY, basic=False)
BASIC_LINE = hash_credential("alice", "secret", basic=True)
SALT, HASH = "ab" * 16, "cd" * 32


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_lines_made_are_lines_read(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text(f"# comment\n\n{KEY_LINE}\n{BASIC_LINE}\n")
    credentials = load_credentials(auth_key="inline key", auth_file=path)
    assert Authenticator(credentials).schemes == ("basic", "bearer")
    assert len(credentials) == 3
    assert KEY not in KEY_LINE
    assert "secret" not in BASIC_LINE


def test_salts_differ() -> None:
    assert hash_credential("alice", "secret", basic=True) != BASIC_LINE


@pytest.mark.parametrize(
    ("name", "secret", "is_basic"),
    [
        ("a b", KEY, False),
        ("", KEY, False),
        ("label", "canary", False),
        ("label", "canary ünd nochmal canary", False),
        ("label", " canary and once more canary", False),
        ("a:b", "canary", True),
        ("", "canary", True),
        ("a\nb", "canary", True),
        ("a", "", True),
    ],
)
def test_unusable_names_and_secrets(name: str, secret: str, is_basic: bool) -> None:
    with pytest.raises(ConfigurationError) as caught:
        hash_credential(name, secret, basic=is_basic)
    assert "canary" not in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "canary",
        "key:label:sha256:canary",
        f"key:label:md5:{HASH}",
        f"key:la bel:sha256:{HASH}",
        f"key:label:sha256:{HASH}:canary",
        f"key:label:sha256:{HASH.upper()}",
        f"basic::scrypt:16384,8,1:{SALT}:{HASH}",
        f"basic:a:scrypt:16384,8,1:{SALT}:{HASH}00",
        f"basic:a:scrypt:16384,8,1::{HASH}",
        f"basic:a:scrypt:1024,8,1:{SALT}:{HASH}",
        f"basic:a:scrypt:16385,8,1:{SALT}:{HASH}",
        f"basic:a:scrypt:16384,1,1:{SALT}:{HASH}",
        f"basic:a:scrypt:16384,8,0:{SALT}:{HASH}",
        f"basic:a:scrypt:16384,8,17:{SALT}:{HASH}",
        f"basic:a:scrypt:67108864,8,1:{SALT}:{HASH}",
        f"basic:a:scrypt:16384,8:{SALT}:{HASH}",
        f"basic:a:plain:canary:{SALT}:{HASH}",
    ],
)
def test_wrong_lines_are_named_by_number_and_not_shown(line: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^the file, line 2: ") as caught:
        parse_credentials(f"{KEY_LINE}\n{line}\n", source="the file")
    assert "canary" not in str(caught.value)
    assert HASH not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "\n \n"])
def test_file_without_credentials_does_not_open_the_server(text: str) -> None:
    with pytest.raises(ConfigurationError, match="holds no credential"):
        parse_credentials(text, source="f")


def test_double_names_unreadable_files_and_empty_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="two entries of one name"):
        parse_credentials(f"{KEY_LINE}\n{KEY_LINE}", source="f")
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load_credentials(auth_key=None, auth_file=tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load_credentials(auth_key=None, auth_file=tmp_path / "binary")
    with pytest.raises(ConfigurationError, match="empty"):
        load_credentials(auth_key="", auth_file=None)
    with pytest.raises(ConfigurationError, match="printable ASCII"):
        load_credentials(auth_key="schlüssel", auth_file=None)


def test_nobody_is_asked_where_there_is_no_credential() -> None:
    authenticator = Authenticator(load_credentials(auth_key=None, auth_file=None))
    assert authenticator.schemes == ()
    asyncio.run(authenticator.check(None))


def test_one_kind_alone_refuses_the_other() -> None:
    keys = Authenticator(parse_credentials(KEY_LINE, source="f"))
    assert (keys.schemes, keys.challenge) == (("bearer",), 'Bearer realm="confonnx"')
    asyncio.run(keys.check(f"Bearer {KEY}"))
    with pytest.raises(AuthenticationError):
        asyncio.run(keys.check(basic("alice", "secret")))
    passwords = Authenticator(parse_credentials(BASIC_LINE, source="f"))
    assert passwords.schemes == ("basic",)
    with pytest.raises(AuthenticationError):
        asyncio.run(passwords.check(f"Bearer {KEY}"))


def test_each_of_several_keys_passes() -> None:
    keys = [f"{number} is an api key of some length" for number in range(3)]
    lines = [hash_credential(f"k{number}", key, basic=False) for number, key in enumerate(keys)]
    authenticator = Authenticator(parse_credentials("\n".join(lines), source="f"))
    for key in keys:
        asyncio.run(authenticator.check(f"Bearer {key}"))
    with pytest.raises(AuthenticationError):
        asyncio.run(authenticator.check("Bearer 3 is an api key of some length"))


def test_scrypt_is_paid_once_for_a_right_password_and_always_for_wrong_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs: list[bytes] = []
    original = auth._scrypt

    def counting(password: bytes, salt: bytes, cost: tuple[int, int, int]) -> bytes:
        runs.append(password)
        return original(password, salt, cost)

    monkeypatch.setattr(auth, "_scrypt", counting)

    async def scenario() -> None:
        authenticator = Authenticator(parse_credentials(BASIC_LINE, source="f"))
        for _ in range(3):
            await authenticator.check(basic("alice", "secret"))
        assert len(runs) == 1
        for user in ("alice", "alice", "nobody"):
            with pytest.raises(AuthenticationError):
                await authenticator.check(basic(user, "wrong"))
        assert len(runs) == 4
        await authenticator.check(basic("alice", "secret"))
        assert len(runs) == 4

    asyncio.run(scenario())


def test_remembered_passwords_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_MAX_REMEMBERED", 1)
    lines = "\n".join(hash_credential(user, "p", basic=True) for user in ("a", "b"))

    async def scenario() -> None:
        authenticator = Authenticator(parse_credentials(lines, source="f"))
        for user in ("a", "b", "a"):
            await authenticator.check(basic(user, "p"))
        assert len(authenticator._remembered) == 1

    asyncio.run(scenario())


def test_password_checks_are_one_at_a_time_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        authenticator = Authenticator(parse_credentials(BASIC_LINE, source="f"))
        running = most = 0

        def matches(self: Password, password: bytes) -> bool:
            nonlocal running, most
            running += 1
            most = max(most, running)
            time.sleep(0.002)
            running -= 1
            return False

        monkeypatch.setattr(Password, "matches", matches)
        checks = [authenticator.check(basic("alice", str(number))) for number in range(40)]
        outcomes = await asyncio.gather(*checks, return_exceptions=True)
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds.count(AuthenticationError) == 16
        assert kinds.count(OverloadedError) == 24
        assert most == 1

    asyncio.run(scenario())


def test_nothing_secret_in_reprs() -> None:
    credentials = parse_credentials(f"{KEY_LINE}\n{BASIC_LINE}", source="f")
    shown = repr(credentials) + repr(Authenticator(credentials))
    for secret in (KEY_LINE.rpartition(":")[2], BASIC_LINE.rpartition(":")[2], KEY):
        assert secret not in shown
        assert repr(bytes.fromhex(secret))[2:-1] not in shown
