"""Sources of credentials, with real credential helpers."""

import asyncio
from pathlib import Path

import pytest

from registry.client import credentials as module
from registry.client.credentials import (
    CredentialCache,
    Credentials,
    find_helper_key,
    from_file,
    from_helper,
    from_settings,
)
from registry.errors import ConfigError, UpstreamUnavailableError

pytestmark = pytest.mark.anyio

ANN = Credentials("ann", "secret-word")


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of programs that is first in PATH."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def install(folder: Path, script: str) -> None:
    program = folder / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


async def test_a_helper_gets_the_server_and_returns_json(helpers: Path) -> None:
    install(
        helpers,
        f'[ "$1" = get ] || exit 1\ncat > {helpers}/asked\n'
        """echo '{"ServerURL": "x", "Username": "ann", "Secret": "secret-word"}'""",
    )
    assert await from_helper("test", "registry.example:5000")() == ANN
    assert (helpers / "asked").read_text() == "registry.example:5000"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo credentials not found; exit 1", "has no credentials"),
        ("""echo '{"Username": "ann", "Secret": "secret-word"}'; exit 1""", "has no credentials"),
        ("echo secret-word", "has no credentials"),
        ("""echo '{"Username": "ann"}'""", "has no credentials"),
        ("""echo '{"Username": "ann", "Secret": ["secret-word"]}'""", "has no credentials"),
        ("yes secret-word", "has no credentials"),
        ("sleep 60", "did not respond"),
        ("sleep 60 & echo '{}'", "did not respond"),
    ],
)
async def test_a_helper_that_fails(
    helpers: Path, script: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELPER_S", 1.0)
    install(helpers, script)
    with pytest.raises(UpstreamUnavailableError, match=problem) as caught:
        await asyncio.wait_for(from_helper("test", "registry.example")(), 30)
    assert "secret-word" not in caught.value.message


async def test_a_helper_that_is_not_installed() -> None:
    with pytest.raises(UpstreamUnavailableError, match="cannot run docker-credential-none"):
        await from_helper("none", "registry.example")()


@pytest.mark.parametrize("name", ["", "../sh", "a b", "-x", "a;b", "A", "a" * 65])
def test_names_that_are_no_helper(name: str) -> None:
    with pytest.raises(ConfigError, match="invalid credential helper"):
        from_helper(name, "registry.example")


async def test_a_password_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("old\n")
    cache = CredentialCache(from_file("ann", path))
    old = await cache.get()
    assert old.password == "old"  # noqa: S105 - of a test
    path.write_text("new\n")
    assert await cache.get() == old
    assert await cache.replace(old) == Credentials("ann", "new")
    assert await cache.replace(Credentials("ann", "new")) is None
    path.unlink()
    with pytest.raises(UpstreamUnavailableError, match="cannot be read"):
        await from_file("ann", path)()


async def test_no_representation_has_the_password() -> None:
    given = await from_settings("ann", "secret-word")()
    assert given == ANN
    assert "secret-word" not in repr(given)
    assert not given.is_identity_token


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://registry-1.docker.io", "https://index.docker.io/v1/"),
        ("https://1.dkr.ecr.eu-1.amazonaws.com/x", "1.dkr.ecr.eu-1.amazonaws.com"),
        ("http://127.0.0.1:5000", "127.0.0.1:5000"),
    ],
)
def test_the_key_of_a_registry(url: str, key: str) -> None:
    assert find_helper_key(url) == key
