"""The first admin without a terminal: a password file, as Compose and Kubernetes mount it."""

from pathlib import Path

import httpx
import pytest

from registry.config import Settings, load, require_safe_listen
from registry.errors import ConfigError
from tests.support.servers.server import Server, serving

PASSWORD = "the password of a file"  # noqa: S105 - of a test


def never() -> bool:
    raise AssertionError


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "admin-password"
    path.write_text(PASSWORD + "\n")
    return path


def settings(tmp_path: Path, **overrides: str) -> Settings:
    given = {f"auth.{name}": value for name, value in overrides.items()}
    return load(config=None, data=tmp_path, overrides=given, environ={})


def sign_in(server: Server, name: str, password: str) -> int:
    return httpx.get(f"{server.url}/api/v1/me", auth=(name, password)).status_code


@pytest.mark.parametrize("workers", [1, 2])
def test_serve_adds_it_once(tmp_path: Path, secret: Path, workers: int) -> None:
    given = {
        "MOORAGE_AUTH__ADMIN_PASSWORD_FILE": str(secret),
        "MOORAGE_AUTH__ADMIN_USER": "ops@example.org",
    }
    server = Server(tmp_path / "data", workers=workers, settings=given)
    with serving(server):
        assert httpx.get(f"{server.url}/v2/").status_code == 401
        assert sign_in(server, "ops@example.org", PASSWORD) == 200
        users = httpx.get(f"{server.url}/api/v1/users", auth=("ops@example.org", PASSWORD)).json()
        assert [(user["name"], user["admin"]) for user in users["items"]] == [
            ("ops@example.org", True)
        ]
    secret.write_text("another password\n")
    with serving(server):  # there is already a user, so nothing is added or changed
        assert sign_in(server, "ops@example.org", PASSWORD) == 200
        assert sign_in(server, "ops@example.org", "another password") == 401


def test_it_opens_no_registry_to_others(tmp_path: Path, secret: Path) -> None:
    """Other machines may connect to the registry, because there is an admin who can sign in."""
    given = {"http.listen": ":5000", "auth.admin_password": PASSWORD}
    require_safe_listen(load(config=None, data=tmp_path, overrides=given, environ={}), never)
    bare = load(config=None, data=tmp_path, overrides={"http.listen": ":5000"}, environ={})
    with pytest.raises(ConfigError, match="MOORAGE_AUTH__ADMIN_PASSWORD_FILE"):
        require_safe_listen(bare, lambda: False)
    assert PASSWORD not in repr(settings(tmp_path, admin_password_file=str(secret)))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"admin_password": "short"}, "auth.admin_password must have 8 to 1024 characters"),
        ({"admin_user": "a/b"}, "auth.admin_user: invalid user name 'a/b'"),
        ({"admin_password": PASSWORD, "mode": "none"}, 'cannot be used with auth.mode = "none"'),
        (
            {"admin_password": PASSWORD, "local_users": "false"},
            "cannot be used with auth.local_users = false",
        ),
        ({"admin_password_file": "nowhere"}, "No such file"),
    ],
)
def test_what_cannot_be_added_is_told_before_the_start(
    tmp_path: Path, overrides: dict[str, str], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        settings(tmp_path, **overrides)
    assert PASSWORD not in caught.value.message
